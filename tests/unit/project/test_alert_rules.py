"""The alert rules: promtool runs each on series that make it fire and on others that nearly do; the links they carry exist."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from ruamel.yaml import YAML

from ops.prometheus import FOLDER, RULES, slo_rules
from ops.telemetry import table  # noqa: F401 - importing it registers the metrics
from ops.telemetry.metric_kinds import TABLE
from support.paths import ROOT
from support.telemetry.tools import checked

Series = dict[str, str]

ALERTMANAGER = FOLDER / "alertmanager.yml"
RUNBOOK = "ops/docs/runbook.md"
DASHBOARDS = {  # their variables, by uid
    board["uid"]: {variable["name"] for variable in board["templating"]["list"]}
    for board in (json.loads(path.read_text()) for path in (ROOT / "ops" / "grafana").glob("*.json"))
}
EVERY: list[dict[str, Any]] = [
    rule for path in RULES for group in YAML(typ="safe").load(path)["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in EVERY if "alert" in rule]


@dataclass(frozen=True)
class Case:
    """Series, a sample a minute, that make an alert fire after so many minutes, and others that do not.

    `labels` are those of the alert, without its severity's name; `near` is whatever keeps it from firing.
    """

    fires: Series
    near: Series
    minutes: int
    labels: dict[str, str] = field(default_factory=dict)


def up(role: str, value: int, instance: str = "a") -> Series:
    return {f'up{{job="waxseal",role="{role}",instance="{instance}"}}': f"{value}x20"}


OTHERS_UP = up("ingress", 1) | up("relay", 1) | up("deliver", 1)


def ready(queue: str, values: str) -> Series:
    return {f'waxseal_queue_messages{{queue="{queue}",state="ready"}}': values}


def disk(free: str) -> Series:
    return {'waxseal_disk_free_bytes{disk="data"}': free, 'waxseal_disk_size_bytes{disk="data"}': "100x20"}


def answered(server: str, instance: str) -> str:
    return f'waxseal_server_last_answer_timestamp_seconds{{server="{server}",role="relay",instance="{instance}"}}'


CHAIN_BROKEN = 'waxseal_dead_letters_total{stage="append",reason="chain_broken"}'
POISON = 'waxseal_dead_letters_total{stage="admit",reason="poison"}'
BUSY_POOL = 'waxseal_db_pool_connections{role="ingest",instance="a",state="checked_out"}'
POOL = {'waxseal_db_pool_size{role="ingest",instance="a"}': "10x20"}
# Four processes of a role, each replaced once.
REPLACED = {f'process_start_time_seconds{{job="waxseal",role="ingest",instance="{each}"}}': "-9x5 300x9" for each in "abcd"}
STARTED_OFTEN = {'process_start_time_seconds{job="waxseal",role="ingest",instance="a"}': "0+60x15"}
THREADS = {'waxseal_worker_threads{pool="mail"}': "10x30"}
BUSY = {'waxseal_actor_in_progress{pool="mail"}': "10x30"}
WAITS = 'waxseal_actor_queue_wait_seconds_bucket{{pool="mail",le="{}"}}'
SLOW, QUICK = ({WAITS.format(bound): "0+60x30", WAITS.format("+Inf"): "0+60x30"} for bound in ("60.0", "0.5"))
MAIL = {'waxseal_mailboxes{state="active"}': "1x9"}
READ = 'waxseal_ingest_last_success_timestamp_seconds{connector="mail"}'
COLLECTED = {'waxseal_collector_up{collector="database"}': "1x10"}
SEEN = 'waxseal_collector_last_success_timestamp_seconds{collector="database"}'
DELIVERED = 'waxseal_actor_messages_total{queue="waxseal.deliver",actor="deliver",outcome="done"}'
AGE = 'waxseal_stage_oldest_age_seconds{{stage="{}"}}'
AWAY, FOUND = (f'waxseal_blob_operations_total{{operation="put",outcome="{outcome}"}}' for outcome in ("away", "ok"))
TAKEN = 'waxseal_log_anchors_total{{kind="witness",outcome="{}"}}'
VERIFIED = "waxseal_chain_verify_last_success_timestamp_seconds"
RECORDED = 'waxseal_chain_head_sequence{chain="all"}'
CONSUMERS = 'waxseal_queue_consumers{{queue="{}"}}'

CASES = {
    "WaxsealAllDown": Case(up("ingest", 0) | up("relay", 0), up("ingest", 0) | up("relay", 1), 4),
    "WaxsealRoleDown": Case(
        up("ingest", 0) | OTHERS_UP,
        up("ingest", 0) | up("ingest", 1, "b") | up("mail-idle", 0) | OTHERS_UP,
        4,
        {"role": "ingest"},
    ),
    "WaxsealProcessDown": Case(
        up("ingest", 0) | up("ingest", 1, "b"),
        {'up{job="waxseal",role="ingest",instance="a"}': "0x9 1x10"},
        12,
        {"job": "waxseal", "role": "ingest", "instance": "a"},
    ),
    "WaxsealCrashLoop": Case(
        {'waxseal_process_restarts_total{process="ingest"}': "0+1x15"} | STARTED_OFTEN,
        {'waxseal_process_restarts_total{process="ingest"}': "0 1 2 3 3x15"} | REPLACED,
        12,
        {"process": "ingest"},
    ),
    "WaxsealServerSilent": Case(
        {'waxseal_server_last_answer_timestamp_seconds{server="postgres",instance="a"}': "60x10"},
        {
            'waxseal_server_last_answer_timestamp_seconds{server="postgres",instance="a"}': "60x10",
            'waxseal_server_last_answer_timestamp_seconds{server="postgres",instance="b"}': "0+60x10",
        },
        5,
        {"server": "postgres"},
    ),
    "WaxsealBrokerAlarm": Case(
        {'waxseal_broker_alarm{resource="memory"}': "1x5"},
        {'waxseal_broker_alarm{resource="memory"}': "1 0x5"},
        3,
        {"resource": "memory"},
    ),
    "WaxsealBlobStoreAway": Case({AWAY: "0+1x9"}, {AWAY: "7x9", FOUND: "0+1x9"}, 8),
    "WaxsealDiskFilling": Case(disk("14x20"), disk("16x20"), 17, {"disk": "data"}),
    "WaxsealDiskAlmostFull": Case(disk("4x5"), disk("6x5"), 3, {"disk": "data"}),
    "WaxsealArchiveBehind": Case(
        {"waxseal_wal_archive_failing": "1x9"},
        {"waxseal_wal_archive_failing": "1x3 0x6", "waxseal_wal_archive_behind_bytes": "5e8x9"},
        7,
    ),
    "WaxsealClockWrong": Case(
        {answered("postgres", "a"): "-60+60x9", answered("postgres", "b"): "0+60x9", answered("rabbitmq", "b"): "60x9"},
        {  # postgres is frozen, b sees that rabbitmq is not
            answered("postgres", "a"): "60x9",
            answered("postgres", "b"): "60x9",
            answered("rabbitmq", "b"): "4+60x9",
        },
        7,
        {"role": "relay", "instance": "a"},
    ),
    "WaxsealWorkersSaturated": Case(THREADS | BUSY | SLOW, THREADS | BUSY | QUICK, 18, {"pool": "mail"}),
    "WaxsealPoolExhausted": Case(
        POOL | {BUSY_POOL: "10x20"}, POOL | {BUSY_POOL: "9x20"}, 12, {"role": "ingest", "instance": "a"}
    ),
    "WaxsealQueueStalled": Case(
        ready("waxseal.deliver", "7x20") | {DELIVERED: "9x20"},
        ready("waxseal.deliver", "7x20")
        | {DELIVERED: "9+1x20"}
        | ready("waxseal.ingest", "7x20")
        | {POISON: "0+1x20"}
        | {'waxseal_dedupe_messages_total{result="new"}': "5x20"},
        12,
        {"queue": "waxseal.deliver"},
    ),
    "WaxsealNoConsumer": Case(
        {CONSUMERS.format("waxseal.ingest"): "0x5"},
        {CONSUMERS.format("waxseal.ingest"): "1x5", CONSUMERS.format("waxseal.mail"): "0x5"} | ready("waxseal.mail", "0x5"),
        3,
        {"queue": "waxseal.ingest"},
    ),
    "WaxsealInboxTooOld": Case(
        {AGE.format("inbox"): "301x5"}, {AGE.format("inbox"): "299x5", AGE.format("retries"): "899x5"}, 3
    ),
    "WaxsealOldestTooOld": Case(
        {AGE.format("in_flight"): "901x9"},
        {AGE.format("unclaimed"): "299x9", AGE.format("in_flight"): "899x9", AGE.format("mail"): "3601x9"},
        3,
        {"stage": "in_flight"},
    ),
    "WaxsealBacklogGrowing": Case(
        ready("waxseal.ingest", "0+500x40"), ready("waxseal.ingest", "0+300x40"), 35, {"queue": "waxseal.ingest"}
    ),
    "WaxsealMessagesUnrouted": Case(
        {"waxseal_unrouted_messages_total": "0x3 4x5"}, {"waxseal_unrouted_messages_total": "4x8"}, 6
    ),
    "WaxsealCollectorBlind": Case(COLLECTED | {SEEN: "0x10"}, COLLECTED | {SEEN: "0+60x10"}, 6, {"collector": "database"}),
    "WaxsealBreakersOpen": Case(
        {'waxseal_destinations{state="open"}': "1x20"}, {'waxseal_destinations{state="open"}': "1x12 0 1x9"}, 17
    ),
    "WaxsealEndpointDisabled": Case(
        {"waxseal_endpoints_disabled_total": "0x3 1x5"}, {"waxseal_endpoints_disabled_total": "1x8"}, 6
    ),
    "WaxsealDeadLettersArriving": Case(
        {POISON: "0+1x25"}, {POISON: "0x9 9x16", CHAIN_BROKEN: "0+5x25"}, 22, {"stage": "admit", "reason": "poison"}
    ),
    "WaxsealDeadLettersForgotten": Case(
        {'waxseal_dead_letter_oldest_age_seconds{queue="deliver"}': "432001x9"},
        {'waxseal_dead_letter_oldest_age_seconds{queue="deliver"}': "431999x9"},
        7,
        {"queue": "deliver"},
    ),
    "WaxsealMailboxNeedsSomebody": Case(
        {'waxseal_mailboxes{state="needs_reauthorization"}': "1x3"},
        {'waxseal_mailboxes{state="needs_reauthorization"}': "0x3"},
        2,
    ),
    "WaxsealMailboxesFailing": Case(
        {'waxseal_mailboxes{state="failing"}': "2x65"}, {'waxseal_mailboxes{state="failing"}': "2x50 0 2x14"}, 62
    ),
    "WaxsealMailNotRead": Case(MAIL | {READ: "-3600x9"}, {READ: "-3600x9"} | {'waxseal_mailboxes{state="active"}': "0x9"}, 7),
    "WaxsealChainBroken": Case(
        {'waxseal_chain_broken_links{chain="all"}': "1x3"},
        {'waxseal_chain_broken_links{chain="all"}': "0x3"},
        2,
        {"chain": "all"},
    ),
    "WaxsealChainUnverified": Case(
        {VERIFIED: "-93600x65", RECORDED: "1x65"}, {VERIFIED: "-93600x30 1800x35", RECORDED: "1x65"}, 62
    ),
    "WaxsealLogRefused": Case({"waxseal_log_refused": "1x3"}, {"waxseal_log_refused": "0x3"}, 2),
    "WaxsealLogUnsealed": Case({"waxseal_log_unsealed_age_seconds": "301x5"}, {"waxseal_log_unsealed_age_seconds": "299x5"}, 3),
    "WaxsealNotAnchored": Case(
        {TAKEN.format("failed"): "0+1x90"},
        {TAKEN.format("failed"): "0+1x90", TAKEN.format("anchored"): "0+0.1x90"},
        85,
        {"kind": "witness"},
    ),
    "WaxsealSequencingLate": Case({AGE.format("sequencing"): "61x5"}, {AGE.format("sequencing"): "59x5"}, 3),
    "WaxsealChainSetAside": Case({CHAIN_BROKEN: "0x3 1x5"}, {CHAIN_BROKEN: "1x8", POISON: "0+1x8"}, 6),
    "WaxsealRetentionHeld": Case(
        {"waxseal_retention_held": "1x20"},
        {"waxseal_retention_held": "0x20", "waxseal_retention_behind_seconds": "3600x20"},
        17,
    ),
    "WaxsealConflictingDuplicates": Case(
        {'waxseal_dedupe_conflicts_total{source="amqp"}': "0x3 1x5"},
        {'waxseal_dedupe_conflicts_total{source="amqp"}': "1x8"},
        6,
        {"source": "amqp"},
    ),
}

DELAY = "waxseal_delivery_first_attempt_delay_seconds"


def counted(failed: str, fine: str, every: str) -> Series:
    """The series of all objectives, given the values of three counters."""
    return {
        'waxseal_ingest_messages_total{outcome="error"}': failed,
        'waxseal_ingest_messages_total{outcome="accepted"}': fine,
        'waxseal_ingest_messages_total{outcome="rejected"}': "0+1000x200",  # by our senders' fault
        'waxseal_delivery_attempts_total{outcome="failed",fault="platform"}': failed,
        'waxseal_delivery_attempts_total{outcome="delivered",fault="none"}': fine,
        f"{DELAY}_count": every,
        f'{DELAY}_bucket{{le="30.0"}}': fine,
    }


def look(series: Series, alert: str, minutes: int, expected: list[dict[str, str]]) -> dict[str, Any]:
    """A test of promtool: which alerts of this name fire after so many minutes."""
    labels = [{"alertname": alert, "alertstate": "firing"} | each for each in expected]
    samples = [f"ALERTS{{{','.join(f'{name}={json.dumps(value)}' for name, value in each.items())}}}" for each in labels]
    return {
        "name": alert,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname=~"{alert}",alertstate="firing"}}',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": sample, "value": 1} for sample in samples],
            }
        ],
    }


def together(looks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same in fewer tests: alerts that share no metric, neither in their series nor in their expressions, share one."""
    found: list[tuple[set[str], dict[str, Any]]] = []
    for look in looks:
        named = json.dumps([look["input_series"], [rule["expr"] for rule in ALERTS if rule["alert"] == look["name"]]])
        named_metrics = set(re.findall(r"\b(waxseal_\w+|up|process_\w+)\b", named))
        taken, test = next((each for each in found if not each[0] & named_metrics), (set(), {}))
        if not test:
            test |= {"name": "", "interval": "1m", "input_series": [], "promql_expr_test": []}
            found.append((taken, test))
        taken |= named_metrics
        test["name"] += f"{look['name']} "
        test["input_series"] += look["input_series"]
        test["promql_expr_test"] += look["promql_expr_test"]
    return [test for _, test in found]


def passes(tests: list[dict[str, Any]], rules: Path, folder: Path) -> None:
    """JSON is YAML, too."""
    (folder / "tests.yml").write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    checked("promtool", "test", "rules", str(folder / "tests.yml"))


def test_the_configuration_of_prometheus_is_valid() -> None:
    checked("promtool", "check", "config", str(FOLDER / "prometheus.yml"))


def test_the_rules_are_valid_and_none_is_there_twice() -> None:
    checked("promtool", "check", "rules", "--lint-fatal", *map(str, RULES))


def test_the_rules_of_the_objectives_are_what_the_program_writes() -> None:
    assert slo_rules.text() == (FOLDER / "slo.yml").read_text()


def test_every_alert_fires_when_it_has_to_and_only_then(tmp_path: Path) -> None:
    severity = {rule["alert"]: {"severity": rule["labels"]["severity"]} for rule in ALERTS}
    fires = [look(case.fires, alert, case.minutes, [severity[alert] | case.labels]) for alert, case in CASES.items()]
    near = [look(case.near, alert, case.minutes, []) for alert, case in CASES.items()]

    passes([*together(fires), *together(near)], FOLDER / "alerts.yml", tmp_path)


def test_an_empty_ledger_has_nothing_to_verify(tmp_path: Path) -> None:
    fresh = {VERIFIED: "-93600x120", RECORDED: "0x50 1x70"}

    nothing = look(fresh, "WaxsealChainUnverified", 105, [])
    passes([nothing, look(fresh, "WaxsealChainUnverified", 115, [{"severity": "ticket"}])], FOLDER / "alerts.yml", tmp_path)


def test_a_budget_that_burns_raises_all_its_alerts_and_one_that_lasts_or_a_single_failure_none(tmp_path: Path) -> None:
    burns = [rule["labels"] | {"alertname": rule["alert"]} for rule in ALERTS if "slo" in rule["labels"]]
    seen = [
        (counted("0+40x200", "0+60x200", "0+100x200"), 195, burns),
        (counted("0+1x80", "0+1999x80", "0+2000x80"), 75, []),
        (counted("0x9 1x30", "0x9 4x30", "0x9 5x30"), 30, []),
    ]

    tests = [look(series, "Waxseal.*BudgetBurn", minutes, expected) for series, minutes, expected in seen]
    passes(tests, FOLDER / "slo.yml", tmp_path)
    assert 12 == len(burns)


def test_the_time_that_an_objective_allows_is_the_bound_of_a_bucket() -> None:
    (delay,) = (metric for metric in REGISTRY.collect() if metric.name == DELAY)

    assert slo_rules.FIRST_ATTEMPT_SECONDS in {float(sample.labels["le"]) for sample in delay.samples if "le" in sample.labels}


def test_every_alert_has_its_case() -> None:
    objectives = {objective.alert for objective in slo_rules.OBJECTIVES}

    assert CASES.keys() | objectives == {rule["alert"] for rule in ALERTS}


def test_a_case_differs_from_the_one_that_nearly_fires() -> None:
    assert [] == [alert for alert, case in CASES.items() if case.fires == case.near]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels'].get('long', 'all')}")
def test_an_alert_says_what_it_is_and_leads_to_its_section_and_its_dashboard(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    page, _, anchor = notes["runbook_url"].partition("#")
    dashboard = re.fullmatch(r"/d/([a-z-]+)(?:\?var-(\w+)=.+)?", notes["dashboard_url"])

    assert {"severity"} <= rule["labels"].keys()
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description", "runbook_url", "dashboard_url"} == notes.keys()
    assert (RUNBOOK, rule["alert"].lower()) == (page, anchor)
    assert f"\n## {rule['alert']}\n" in (ROOT / page).read_text(encoding="utf-8")
    assert dashboard is not None
    assert dashboard[1] in DASHBOARDS
    assert dashboard[2] in {None, *DASHBOARDS[dashboard[1]]}


def test_every_section_of_the_runbook_on_an_alert_has_that_alert() -> None:
    sections = re.findall(r"^## (Waxseal\w+)$", (ROOT / RUNBOOK).read_text(encoding="utf-8"), re.MULTILINE)

    assert {rule["alert"] for rule in ALERTS} == set(sections)
    assert len(sections) == len(set(sections))


def test_an_annotation_names_only_labels_that_the_alert_has() -> None:
    """A label that is not there is shown as nothing."""
    labels = {alert: {"severity", *case.labels} for alert, case in CASES.items()}

    for rule in ALERTS:
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert named <= labels.get(rule["alert"], set(rule["labels"])), rule["alert"]


def test_every_value_of_a_label_that_a_rule_names_exists() -> None:
    """As far as the table of metrics says them; only a running process knows the names of queues and actors."""
    values = {
        (name + suffix, label): set(known)
        for name, row in TABLE.items()
        for suffix in ("", "_bucket", "_count", "_sum")
        for label, known in row.labels.items()
    }
    for sample in (sample for metric in REGISTRY.collect() for sample in metric.samples if "le" in sample.labels):
        values.setdefault((sample.name, "le"), set()).add(sample.labels["le"])
    matchers = [
        (name, label, pattern.replace("\\\\", "\\"))
        for rule in EVERY
        for name, inside in re.findall(r"\b(waxseal_\w+)\{(.*?)\}", rule["expr"])
        for label, pattern in re.findall(r'(\w+)(?:=|!=|=~)"(.*?)"', inside)
    ]
    unknown = [
        (name, label, pattern)
        for name, label, pattern in matchers
        if (known := values.get((name, label))) and not any(re.fullmatch(pattern, value) for value in known)
    ]

    assert len(matchers) > 40
    assert [] == unknown


def test_alertmanager_sends_each_severity_to_its_receiver() -> None:
    checked("amtool", "check-config", str(ALERTMANAGER))
    for labels, receiver in (("severity=page", "page"), ("severity=ticket", "ticket"), ("alertname=Watchdog", "ticket")):
        sent = checked("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", labels)
        assert receiver == sent.strip()


def test_alertmanager_inhibits_only_alerts_that_exist_and_none_by_itself() -> None:
    names = {rule["alert"] for rule in ALERTS}
    for rule in YAML(typ="safe").load(ALERTMANAGER)["inhibit_rules"]:
        for matchers in (rule["source_matchers"], rule["target_matchers"]):
            matched = re.match(r'alertname =~? "?([^"]+)"?$', matchers[0])
            assert matched is not None
            assert [] == [name for name in alternatives(matched[1]) if not any(re.fullmatch(name, each) for each in names)]
        assert rule["source_matchers"] != rule["target_matchers"]


def alternatives(pattern: str) -> list[str]:
    """The names in `Prefix(A|B)`, or the pattern itself."""
    listed = re.fullmatch(r"(\w+)\(([\w|]+)\)", pattern)
    return [pattern] if listed is None else [listed[1] + each for each in listed[2].split("|")]


def test_every_metric_that_a_rule_names_exists() -> None:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    known = {metric.name + suffix for metric in REGISTRY.collect() for suffix in suffixes.get(metric.type, ("",))}
    used = {name for rule in EVERY for name in re.findall(r"\bwaxseal_\w+", rule["expr"])}

    assert set() == used - known
