import ast
import math
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy.exc import OperationalError

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine
from ops.telemetry import archive_table, ingest_metrics, label_sets, ledger_table, metric_kinds, metrics, search_table, table
from ops.telemetry.disks import show_disk
from ops.telemetry.exposition import EXPOSITION, Exposition
from ops.telemetry.metric_kinds import TABLE
from ops.telemetry.metrics_page import metrics_page
from ops.telemetry.pools import Pools
from pipeline.errors import BlobsAway
from support.paths import ROOT

# name: (type, labels), on which dashboards and alerts rely: there may be more, but none of these may change
DOCUMENTED = {
    "ingest_messages_total": ("counter", {"source", "outcome"}),
    "ingest_rejections_total": ("counter", {"source", "reason"}),
    "ingest_duration_seconds": ("histogram", {"source"}),
    "ingest_message_bytes": ("histogram", {"source"}),
    "ingress_responses_total": ("counter", {"status"}),
    "dedupe_batch_messages": ("histogram", set()),
    "dedupe_batch_duration_seconds": ("histogram", set()),
    "dedupe_messages_total": ("counter", {"result"}),
    "dedupe_conflicts_total": ("counter", {"source"}),
    "chain_append_duration_seconds": ("histogram", set()),
    "chain_lock_wait_seconds": ("histogram", set()),
    "delivery_attempts_total": ("counter", {"transport", "outcome", "fault"}),
    "delivery_attempt_duration_seconds": ("histogram", {"transport"}),
    "deliveries_total": ("counter", {"transport", "result"}),
    "delivery_first_attempt_delay_seconds": ("histogram", {"transport"}),
    "delivery_end_to_end_seconds": ("histogram", {"transport"}),
    "delivery_attempts_to_success": ("histogram", set()),
    "delivery_connections_total": ("counter", {"reused"}),
    "actor_messages_total": ("counter", {"queue", "actor", "outcome"}),
    "actor_duration_seconds": ("histogram", {"queue", "actor"}),
    "actor_queue_wait_seconds": ("histogram", {"pool"}),
    "actor_in_progress": ("gauge", {"pool"}),
    "worker_threads": ("gauge", {"pool"}),
    "queue_messages": ("gauge", {"queue", "state"}),
    "unrouted_messages_total": ("counter", set()),
    "queue_consumers": ("gauge", {"queue"}),
    "queue_oldest_message_age_seconds": ("gauge", {"queue"}),
    "retries_due": ("gauge", {"when"}),
    "destinations": ("gauge", {"state"}),
    "breaker_transitions_total": ("counter", {"to"}),
    "endpoints_disabled_total": ("counter", set()),
    "dead_letters": ("gauge", {"queue"}),
    "dead_letter_oldest_age_seconds": ("gauge", {"queue"}),
    "dead_letters_total": ("counter", {"stage", "reason"}),
    "dead_letter_replays_total": ("counter", {"result"}),
    "collector_up": ("gauge", {"collector"}),
    "collector_last_success_timestamp_seconds": ("gauge", {"collector"}),
    "server_last_answer_timestamp_seconds": ("gauge", {"server"}),
    "db_pool_connections": ("gauge", {"state"}),
    "db_pool_size": ("gauge", set()),
    "db_pool_wait_seconds": ("histogram", set()),
    "broker_reconnects_total": ("counter", {"connection"}),
    "process_restarts_total": ("counter", {"process"}),
    "mail_pulls_total": ("counter", {"kind", "outcome"}),
    "mail_pull_duration_seconds": ("histogram", {"kind"}),
    "mail_fetched_total": ("counter", {"kind", "lane"}),
    "mail_missing_total": ("counter", {"kind"}),
    "mail_token_refreshes_total": ("counter", {"kind", "outcome"}),
    "mail_resyncs_total": ("counter", {"kind"}),
    "mail_reauthorizations_needed_total": ("counter", {"kind"}),
    "mail_idle_connections": ("gauge", set()),
    "log_leaves_total": ("counter", set()),
    "log_sequence_duration_seconds": ("histogram", set()),
    "log_set_aside": ("gauge", set()),
    "log_seal_duration_seconds": ("histogram", set()),
    "log_unsealed_age_seconds": ("gauge", set()),
    "log_refused": ("gauge", set()),
    "log_anchors_total": ("counter", {"kind", "outcome"}),
    "log_anchor_last_success_timestamp_seconds": ("gauge", {"kind"}),
    "mailboxes": ("gauge", {"state"}),
    "ingest_last_success_timestamp_seconds": ("gauge", {"connector"}),
    "build_info": ("gauge", {"version", "python"}),
    "chain_head_sequence": ("gauge", {"chain"}),
    "chain_verified_sequence": ("gauge", {"chain"}),
    "chain_broken_links": ("gauge", {"chain"}),
    "chain_verify_last_success_timestamp_seconds": ("gauge", set()),
}


def families() -> dict[str, Metric]:
    return {
        family.name.removeprefix("waxseal_") + ("_total" if family.type == "counter" else ""): family
        for family in REGISTRY.collect()
        if family.name.startswith("waxseal_")
    }


def label_names(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels} - {"le"}


def samples(name: str) -> list[Sample]:
    """The samples of one name. Only its metric is collected, unless it is a gauge: the registry does not know their names."""
    full = f"waxseal_{name}"
    collected = list(REGISTRY.restricted_registry([full]).collect()) or REGISTRY.collect()
    return [sample for family in collected for sample in family.samples if sample.name == full]


def names_in(exposition: Exposition) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", exposition.text()[1].decode(), re.MULTILINE))


def value(name: str, **labels: str) -> float:
    return next((sample.value for sample in samples(name) if sample.labels == labels), 0.0)


@pytest.fixture(scope="module", autouse=True)
def _an_actor() -> None:
    metrics.declare_actor("waxseal.deliver", "deliver_batch", "deliver")


def test_the_metrics_are_those_of_the_table() -> None:
    registered = {f"waxseal_{name}": family.type for name, family in families().items()}

    assert {name: row.kind for name, row in TABLE.items()} == registered
    assert [] == [row.name for row in TABLE.values() if not set(row.by) <= set(label_sets.PROCESSES) or not row.by]


def test_what_dashboards_rely_on_is_in_the_table() -> None:
    table = {name.removeprefix("waxseal_"): (row.kind, set(row.labels)) for name, row in TABLE.items()}

    assert DOCUMENTED == {name: found for name, found in table.items() if name in DOCUMENTED}


def test_the_page_on_metrics_is_what_is_generated_from_the_table() -> None:
    assert metrics_page() == (ROOT / "ops/docs/metrics.md").read_text(encoding="utf-8")


def test_a_process_shows_what_it_feeds_and_nothing_else() -> None:
    exposition = Exposition()
    whole = names_in(exposition)
    exposition.of("ingress")
    shown = names_in(exposition)

    assert {name for name, row in TABLE.items() if "ingress" in row.by} == {n for n in shown if n.startswith("waxseal_")}
    assert set(TABLE) == {name for name in whole if name.startswith("waxseal_")}
    assert {"process_resident_memory_bytes", "process_start_time_seconds"} <= shown


def test_every_metric_is_fed_by_code_that_something_outside_telemetry_uses() -> None:
    """Follows the names of functions and classes from the processes to the metrics."""
    tables = {**vars(table), **vars(ledger_table), **vars(search_table), **vars(archive_table)}
    constants = {name for name, metric in tables.items() if any(metric is row.metric for row in TABLE.values())}
    uses: dict[str, set[str]] = {}  # what a function or class of ops/telemetry uses, by its name
    fed: set[str] = set()
    for path in (path for package in ("ops", "workers") for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.parent.name != "telemetry":
            fed |= names_used(tree)
        elif path.name not in ("table.py", "ledger_table.py", "search_table.py", "archive_table.py"):
            for each in tree.body:
                if isinstance(each, ast.FunctionDef | ast.ClassDef):
                    uses.setdefault(each.name, set()).update(names_used(each))
                elif isinstance(each, ast.Expr):
                    fed |= names_used(each)
                elif isinstance(each, ast.Assign | ast.AnnAssign) and not isinstance(each.value, ast.Tuple):
                    target = each.target if isinstance(each, ast.AnnAssign) else each.targets[0]
                    uses[ast.unparse(target)] = names_used(each.value)
    while more := {name for user in fed & uses.keys() for name in uses[user]} - fed:
        fed |= more

    assert len(TABLE) == len(constants)
    assert set() == constants - fed


def names_used(tree: ast.AST) -> set[str]:
    nodes = list(ast.walk(tree))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes if isinstance(node, ast.Name)
    }


def test_every_metric_says_what_it_means() -> None:
    assert [] == [name for name, family in families().items() if not re.fullmatch(r"[A-Z].+\.", family.documentation)]


def test_total_is_the_ending_of_counters_only() -> None:
    text = generate_latest().decode()
    types = dict(re.findall(r"^# TYPE (waxseal_\S+) (\w+)$", text, re.MULTILINE))

    assert {name for name in types if name.endswith("_total")} == {n for n, kind in types.items() if kind == "counter"}


def test_units_are_base_units() -> None:
    assert [] == [name for name in families() if re.search(r"_(ms|milliseconds|minutes|kib|mib|percent)(_|$)", name)]


def test_no_metric_has_a_tenant_or_endpoint_label() -> None:
    assert set() == {"tenant", "endpoint", "subject", "id", "pid"} & {n for _, labels in DOCUMENTED.values() for n in labels}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("ingest_messages_total", {"source": label_sets.SOURCES, "outcome": label_sets.OUTCOMES}),
        ("ingest_rejections_total", {"source": label_sets.SOURCES, "reason": label_sets.REJECTIONS}),
        ("ingest_duration_seconds_count", {"source": label_sets.SOURCES}),
        ("ingress_responses_total", {"status": label_sets.STATUSES}),
        (
            "delivery_attempts_total",
            {"transport": label_sets.TRANSPORTS, "outcome": ("delivered", "failed"), "fault": label_sets.FAULTS},
        ),
        ("dead_letters_total", {"stage": label_sets.STAGES, "reason": label_sets.BURIALS}),
        ("breaker_transitions_total", {"to": ("closed", "open", "half_open")}),
        ("broker_reconnects_total", {"connection": label_sets.CONNECTIONS}),
        ("process_restarts_total", {"process": label_sets.SUPERVISED}),
        (
            "actor_messages_total",
            {"queue": ["waxseal.deliver"], "actor": ["deliver_batch"], "outcome": ["done", "failed"]},
        ),
    ],
)
def test_every_series_of_a_closed_set_exists_from_the_start(name: str, labels: dict[str, tuple[str, ...]]) -> None:
    series = [dict(zip(labels, values, strict=True)) for values in product(*labels.values())]

    found = [sample.labels for sample in samples(name)]
    assert [] == [one for one in series if one not in found]


def test_the_series_of_one_process_stay_within_their_budget() -> None:
    series = sum(1 for line in generate_latest().decode().splitlines() if not line.startswith("#"))

    assert 500 < series < 2_000


def test_the_threshold_of_an_objective_is_an_edge_of_its_histogram() -> None:
    for name, seconds in metric_kinds.OBJECTIVES.items():
        edges = {sample.labels["le"] for sample in samples(f"{name.removeprefix('waxseal_')}_bucket")}
        assert str(seconds) in edges
    assert value("delivery_first_attempt_delay_seconds_bucket", transport="http", le="30.0") is not None
    assert 1048576 in metric_kinds.MESSAGE_BYTES


def test_the_text_is_read_back_by_a_prometheus_parser() -> None:
    names = {family.name for family in text_string_to_metric_families(generate_latest().decode())}

    assert {"waxseal_dead_letters", "waxseal_build_info"} <= names


def test_a_histogram_counts_as_the_librarys_own_does() -> None:
    registry, edges = CollectorRegistry(), (0.1, 1.0, 5.0)
    theirs = Histogram("theirs", "", registry=registry, buckets=edges)
    ours = type(table.INGEST_BYTES)("ours", "", registry=registry, buckets=edges)
    for amount in (-1.0, 0, 0.1, 0.10001, 1, 4.9, 5.0, 5.1, math.inf):
        theirs.observe(amount)
        ours.observe(amount)
    (first, *_), (second, *_) = ours.collect(), theirs.collect()

    assert [(sample.labels, sample.value) for sample in second.samples] == [(s.labels, s.value) for s in first.samples]


def test_an_unforeseen_word_falls_to_the_last_of_its_set() -> None:
    before = value("ingest_rejections_total", source="unknown", reason="other")
    metrics.observe_rejected("acme-special", "the moon is full")

    assert before + 1 == value("ingest_rejections_total", source="unknown", reason="other")


def test_a_batch_is_counted_by_source_and_result() -> None:
    names = [
        ("ingest_messages_total", {"source": "github", "outcome": "accepted"}),
        ("ingest_messages_total", {"source": "amqp", "outcome": "duplicate"}),
        ("dedupe_messages_total", {"result": "new"}),
        ("dedupe_batch_messages_sum", {}),
    ]
    before = [value(name, **labels) for name, labels in names]
    ingest_metrics.observe_batch({"github": 3}, {"amqp": 2}, seconds=0.1, lock_wait=0.01, append=0.05)

    assert [3, 2, 3, 5] == [value(n, **labels) - old for (n, labels), old in zip(names, before, strict=True)]


@pytest.mark.parametrize(
    ("status", "rejection", "counted"), [(202, None, []), (401, "signature", ["rejected"]), (503, None, ["error"])]
)
def test_the_ingress_counts_only_messages_that_end_with_it(status: int, rejection: str | None, counted: list[str]) -> None:
    before = {outcome: value("ingest_messages_total", source="github", outcome=outcome) for outcome in label_sets.OUTCOMES}
    metrics.observe_response("github", status, 0.01, 300, rejection)
    after = {outcome: value("ingest_messages_total", source="github", outcome=outcome) for outcome in label_sets.OUTCOMES}

    assert counted == [outcome for outcome in label_sets.OUTCOMES if after[outcome] > before[outcome]]


@pytest.mark.parametrize(("fault", "outcome"), [("none", "delivered"), ("destination", "failed"), ("platform", "failed")])
def test_an_attempt_is_counted_by_whose_fault_it_was(fault: str, outcome: str) -> None:
    before = value("delivery_attempts_total", transport="http", outcome=outcome, fault=fault)
    metrics.observe_attempt("http", fault, 0.2, first_delay=0.5, reused=True)

    assert before + 1 == value("delivery_attempts_total", transport="http", outcome=outcome, fault=fault)


@given(st.lists(st.one_of(st.floats(0, 100), st.sampled_from([0.0, 0.25, 0.5, 1.0]))))
def test_many_values_are_observed_as_each_of_them_would_be(values: list[float]) -> None:
    one, all_ = (Histogram(name, "", buckets=(0.25, 0.5, 1.0, 10.0), registry=None) for name in ("one", "all"))
    for each in values:
        one.observe(each)
    metric_kinds.observe_all(all_, values)
    (expected,), (actual,) = one.collect(), all_.collect()

    assert [sample.value for sample in expected.samples] == pytest.approx([sample.value for sample in actual.samples])


def test_a_duration_that_clocks_which_differ_make_negative_counts_as_0() -> None:
    delays = table.FIRST_ATTEMPT_SECONDS.labels("smtp")
    before = {name: value(f"delivery_first_attempt_delay_seconds_{name}", transport="smtp") for name in ("sum", "count")}
    delays.observe(-3600.0)
    metric_kinds.observe_all(delays, [-7200.0, 2.0])

    assert before["sum"] + 2.0 == value("delivery_first_attempt_delay_seconds_sum", transport="smtp")
    assert before["count"] + 3 == value("delivery_first_attempt_delay_seconds_count", transport="smtp")


def test_open_metrics_shows_the_same_series_and_the_traces_of_observations() -> None:
    table.DEAD_LETTERS.labels("admit").set(3)
    metrics.observe_attempt("smtp", "destination", 0.3)
    metrics.exemplify_attempt("smtp", "destination", 0.3, 0.3, "ab" * 16)
    (_, plain), (content_type, text) = EXPOSITION.text("text/html, */*"), EXPOSITION.text("application/openmetrics-text;q=0.7")
    samples = [sample for family in open_metrics(text.decode()) for sample in family.samples]

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    ours = {(each.name, *each.labels.items()) for each in samples if each.name.startswith("waxseal_")}
    shown = (sample for family in text_string_to_metric_families(plain.decode()) for sample in family.samples)
    assert ours == {(each.name, *each.labels.items()) for each in shown if each.name.startswith("waxseal_")}
    (traced,) = (each for each in samples if each.exemplar is not None)
    assert ("waxseal_delivery_attempt_duration_seconds_bucket", "0.5") == (traced.name, traced.labels["le"])
    assert ({"trace_id": "ab" * 16}, 0.3) == (traced.exemplar.labels, traced.exemplar.value)


def test_the_end_of_a_delivery_is_counted_once() -> None:
    results = ("delivered", "dead_lettered", "cancelled")
    before = [value("deliveries_total", transport="smtp", result=r) for r in results]
    metrics.observe_delivered("smtp", attempts=2, end_to_end=12.0)
    metrics.observe_buried("deliver", "exhausted", "smtp")
    metrics.observe_buried("admit", "missing_id")
    metrics.observe_cancelled("smtp", 3)

    after = [value("deliveries_total", transport="smtp", result=r) for r in results]
    assert [old + more for old, more in zip(before, (1, 1, 3), strict=True)] == after


def test_the_pools_are_read_when_the_metrics_are_read() -> None:
    pools = Pools()
    engines = [make_engine("postgresql://nobody@127.0.0.1:1/nothing", pool_size=size) for size in (5, 1)]
    for engine in engines:
        pools.watch(engine)
    before = value("db_pool_wait_seconds_count")
    with pytest.raises(OperationalError), engines[0].connect():
        pass

    assert before + 1 == value("db_pool_wait_seconds_count")
    assert (6, 0) == (value("db_pool_size"), value("db_pool_connections", state="checked_out"))
    pools.forget(engines[0])
    assert 1 == value("db_pool_size")


@pytest.mark.parametrize(
    ("reason", "lacking"),
    [
        ("low on memory", {"memory"}),
        ("low on disk", {"disk"}),
        ("low on memory & disk", {"memory", "disk"}),
        ("tired", {"other"}),
        (None, set()),
    ],
)
def test_an_alarm_of_the_broker_is_shown_by_what_it_lacks(reason: str | None, lacking: set[str]) -> None:
    metrics.show_alarm(reason)

    assert lacking == {each for each in label_sets.RESOURCES if value("broker_alarm", resource=each)}


def test_the_disk_is_shown_before_its_folder_is_made(tmp_path: Path) -> None:
    show_disk("blobs", tmp_path / "not" / "yet")
    show_disk("blobs", None)

    assert 0 < value("disk_free_bytes", disk="blobs") < value("disk_size_bytes", disk="blobs")


def test_calls_to_the_blob_store_are_counted_by_whether_it_answered(tmp_path: Path) -> None:
    counted = [("put", "ok"), ("get", "ok"), ("put", "away"), ("other", "ok")]
    before = [value("blob_operations_total", operation=operation, outcome=outcome) for operation, outcome in counted]
    blobs = Blobs(str(tmp_path / "blobs"), called=metrics.observe_blob_call)
    blob = blobs.put("acme", b"x" * 100)
    blobs.get("acme", blob.reference)
    blobs.exists("acme", blob.reference)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlobsAway):
        Blobs(str(tmp_path / "file"), called=metrics.observe_blob_call).put("acme", b"x")

    after = [value("blob_operations_total", operation=operation, outcome=outcome) for operation, outcome in counted]
    assert [1, 1, 1, 1] == [now - then for now, then in zip(after, before, strict=True)]


def test_a_collector_that_went_blind_keeps_the_time_of_its_last_success() -> None:
    metrics.collected("broker", 100.0)
    metrics.collected("broker", None)

    assert 0.0 == value("collector_up", collector="broker")
    assert 100.0 == value("collector_last_success_timestamp_seconds", collector="broker")
