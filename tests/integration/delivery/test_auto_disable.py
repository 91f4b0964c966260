"""An endpoint that only fails is disabled, with an event; its deliveries are kept until an operator decides."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from ops.runtime.db import transaction
from ops.telemetry import table
from pipeline.deliver import judge
from pipeline.delivery.breaker import BreakerPolicy
from pipeline.settle import Settled, settle
from pipeline.store.deliveries import deliveries, paused
from schemas.delivery import Receipt, Tried
from schemas.endpoint import Endpoint
from support.deliveries import claimed, event, record
from support.sending import SECRET
from support.waiting import wait_for
from workers.delivery.report import tally
from workers.relay.repairs import Repairs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=5)
ENDPOINT = Endpoint(1, "acme", "e1", "http://127.0.0.1/", retry=(1.0, 1.0))
POLICY = BreakerPolicy(ratio=1.0, least=10, disable_after=5 * 86_400.0)

OK = Receipt(NOW, 0.1, status=200)
FAILED = Receipt(NOW, 0.1, status=500, error="status", detail="answered 500")
GONE = Receipt(NOW, 0.1, status=410, error="status", detail="answered 410")
STATES = "SELECT state, count(*) FROM delivery GROUP BY 1 ORDER BY 1"


@pytest.fixture(autouse=True)
def _endpoint(database) -> None:
    database.add_tenant()
    database.add_endpoint("e1", "http://127.0.0.1/")


def tried(engine: Engine, count: int, receipt: Receipt, now: datetime) -> Settled:
    """Plans, claims and settles `count` deliveries, whatever the breaker's state."""
    with transaction(engine) as conn:
        conn.exec_driver_sql("UPDATE endpoint_health SET breaker = 'closed', opened_at = NULL, probe_at = NULL")
    record(engine, [event(f"e-{uuid4()}", f"s-{n}") for n in range(count)], now=now)
    lease, claims = claimed(engine, count, now)
    assert count == len(claims)
    with transaction(engine) as conn:
        loaded = deliveries.load_leased(conn, [(each.id, lease) for each in claims]).deliveries
        return settle(conn, [Tried(each, judge(each, ENDPOINT, receipt, now, 0.0)) for each in loaded], now, POLICY, 0.0)


def disabled(count: int, engine: Engine) -> None:
    """Disables the endpoint, and plans `count` deliveries that it misses."""
    with transaction(engine) as conn:
        deliveries.disable(conn, [1], "why not")
    record(engine, [event(f"missed-{n}", f"s-{n}") for n in range(count)], now=NOW, state="disabled")


def test_five_days_of_nothing_but_failures_disable_it_with_an_event_and_a_metric(database, engine) -> None:
    assert {} == tried(engine, 10, FAILED, NOW).disabled
    assert {} == tried(engine, 1, FAILED, LATER - timedelta(seconds=1)).disabled
    before = table.ENDPOINTS_DISABLED._value.get()

    settled = tried(engine, 1, FAILED, LATER)
    tally(settled, (), ())

    why = "nothing but failures since 2026-01-01 00:00:00Z: status: answered 500"
    assert {1: why} == settled.disabled
    assert [("disabled", why)] == database.rows("SELECT state, reason FROM endpoint")
    assert [("endpoint_disabled", "acme", 1, why, LATER)] == database.rows(
        "SELECT kind, tenant, endpoint_id, detail, at FROM operator_event WHERE kind = 'endpoint_disabled'"
    )
    assert before + 1 == table.ENDPOINTS_DISABLED._value.get()


def test_one_success_in_between_begins_the_time_anew(database, engine) -> None:
    tried(engine, 10, FAILED, NOW)
    tried(engine, 1, OK, NOW + timedelta(days=3))
    tried(engine, 10, FAILED, LATER)

    assert [("active",)] == database.rows("SELECT state FROM endpoint")
    assert [(LATER, 10)] == database.rows("SELECT failing_since, streak FROM endpoint_health")


def test_few_failures_over_a_long_time_are_not_enough(database, engine) -> None:
    tried(engine, 1, FAILED, NOW)

    assert {} == tried(engine, 1, FAILED, NOW + timedelta(days=60)).disabled


def test_410_disables_it_with_an_event_and_only_once(database, engine) -> None:
    assert {1: "it answered 410 Gone at 2026-01-01 00:00:00Z"} == tried(engine, 3, GONE, NOW).disabled

    assert [("endpoint_disabled", "it answered 410 Gone at 2026-01-01 00:00:00Z")] == database.rows(
        "SELECT kind, detail FROM operator_event"
    )


def test_what_a_disabled_endpoint_misses_is_kept_and_enabling_needs_a_decision_about_it(database, engine, cli) -> None:
    disabled(3, engine)

    refused = cli.run("endpoint", "enable", "acme", "e1")
    unsure = cli.run("endpoint", "enable", "acme", "e1", "--replay")

    assert (2, "there are 3 deliveries that it missed: add --replay or --discard-missed") == (
        refused.exit_code,
        refused.stderr.removeprefix("Error: ").partition(" (see")[0],
    )
    assert (2, "to replay 3 deliveries that it missed, add --yes") == (
        unsure.exit_code,
        unsure.stderr.removeprefix("Error: ").partition(" (see")[0],
    )
    assert [("disabled", "why not")] == database.rows("SELECT state, reason FROM endpoint")
    assert [("paused", 3)] == database.rows(STATES)


def test_enabling_it_replays_what_it_missed_and_forgets_its_failures(database, engine, cli) -> None:
    tried(engine, 10, FAILED, NOW)
    disabled(3, engine)

    [told] = cli.json("endpoint", "enable", "acme", "e1", "--replay", "--yes", "--by", "ada")

    assert {"tenant": "acme", "endpoint": "e1", "changed": True, "replayed": 3, "discarded": 0} == told
    assert [("active", None)] == database.rows("SELECT state, reason FROM endpoint")
    assert [("pending", 13)] == database.rows(STATES)
    assert [("closed", None, 0, 0)] == database.rows("SELECT breaker, failing_since, streak, failures FROM endpoint_health")
    assert [("endpoint_enabled", "by ada")] == database.rows(
        "SELECT kind, detail FROM operator_event WHERE starts_with(kind, 'endpoint')"
    )
    acts = database.rows("SELECT who, act, filter, count, phase FROM audit ORDER BY id")
    which = {"tenant": "acme", "endpoint": "e1"}
    assert [
        ("ada", "endpoint enable", which, 1, "done"),
        ("ada", "endpoint replay", which, 3, "begun"),
        ("ada", "endpoint replay", which, 3, "done"),
    ] == acts


def test_enabling_it_can_discard_what_it_missed(database, engine, cli) -> None:
    disabled(3, engine)

    ended = cli.run("endpoint", "enable", "acme", "e1", "--discard-missed", "--yes")

    assert (0, "acme/e1 enabled; 3 discarded\n") == (ended.exit_code, ended.stdout)
    assert [("discarded", 3, "missed while the endpoint was disabled")] == database.rows(
        "SELECT state, count(*), min(error) FROM delivery GROUP BY 1"
    )


def test_deliveries_planned_with_a_catalog_from_before_enabling_are_resumed(database, engine, cli) -> None:
    disabled(2, engine)  # long ago; no operator has decided yet
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'active', reason = NULL")
        owner.execute("INSERT INTO endpoint_health (endpoint_id, enabled_at) VALUES (1, now())")
    record(engine, [event("just-now")], state="disabled")

    Repairs(engine).turn()

    assert [("paused", 2), ("pending", 1)] == database.rows(STATES)
    with transaction(engine) as conn:
        assert 2 == paused.count(conn, 1).count


def test_what_a_removed_endpoint_had_not_received_is_counted_as_cancelled(database, engine) -> None:
    record(engine, [event(f"e-{n}") for n in range(3)])
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'removed'")
    counted = table.DELIVERIES.labels("http", "cancelled")
    before = counted._value.get()

    Repairs(engine).turn()

    assert before + 3 == counted._value.get()
    assert [("discarded", 3)] == database.rows(STATES)


def test_an_endpoint_enabled_by_its_configuration_begins_anew_too(database, engine, cli, tmp_path) -> None:
    tried(engine, 10, FAILED, NOW)
    disabled(2, engine)
    file = tmp_path / "waxseal.yaml"
    file.write_text(
        json.dumps(
            {
                "tenants": [{"name": "acme"}],
                "endpoints": [{"tenant": "acme", "name": "e1", "url": "http://127.0.0.1/", "secrets": [SECRET]}],
            }
        )
    )

    ended = cli.owner.run("apply", file, "--enable")

    assert 0 == ended.exit_code, ended.output
    assert [("active", None)] == database.rows("SELECT state, reason FROM endpoint")
    assert [("pending", 12)] == database.rows(STATES)
    assert [(None, 0)] == database.rows("SELECT failing_since, streak FROM endpoint_health")


def test_from_failing_to_disabled_to_enabled_to_delivered(database, engine, sink, start, cli) -> None:
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET url = %s, settings = %s", (sink.url("/500"), '{"retry": [0.1, 0.1, 0.1, 30]}'))
    start("relay")
    start("deliver", disable_after=1, breaker_failures=4, breaker_ratio=1, breaker_wait=0.2, breaker_longest_wait=0.2)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(10)])
    wait_for(lambda: [("disabled",)] == database.rows("SELECT state FROM endpoint"))
    wait_for(lambda: [("paused", 10)] == database.rows(STATES))
    record(engine, [event("late", "late")], state="disabled")
    assert [("paused", 11)] == database.rows(STATES)

    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET url = %s", (sink.url("/200"),))
    ended = cli.run("endpoint", "enable", "acme", "e1", "--replay", "--yes")

    assert 0 == ended.exit_code, ended.output
    wait_for(lambda: [("delivered", 11)] == database.rows(STATES))
