"""Retention: content older than its policy allows is erased, with entries that say so, and never because a clock jumped."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine
from sqlalchemy import event as hooks

from ops.admin.erasure.retention import LONGEST_PAUSE, Ran, doubt, run_retention
from ops.runtime.blobs import Blobs
from ops.settings import Settings
from pipeline.dedupe import chain_key, identity
from pipeline.store.ledger.retention import Run
from schemas.event import Event
from support.deliveries import event, record
from workers.eraser.worker import erase_due

DAY = timedelta(days=1)
KEYS = {"acme": b"k" * 32, "other": b"k" * 32}

FILE = """
tenants: [{name: acme, retention: 90d}, {name: other}]
sources:
  - {tenant: acme, name: orders, kind: amqp}
  - {tenant: acme, name: news, kind: amqp, retention: 30d}
  - {tenant: other, name: orders, kind: amqp}
"""


@pytest.fixture
def configured(database, apply) -> None:
    """Two tenants, one with retention; their keys are those with which the tests' events are made."""
    apply()
    database.run("UPDATE tenant SET fingerprint_key = %s", database.vault.encrypt(b"k" * 32))


def of(id_: str, source: str = "orders", subject: str = "order-1", tenant: str = "acme") -> Event:
    found = event(id_, subject)
    attributes = {**found.attributes, "source": source}
    key = KEYS[tenant]
    return Event(tenant, attributes, b"{}", identity(key, attributes), chain_key(key, subject + tenant))


def aged(engine: Engine, days: float, *events: Event) -> None:
    """Records the events as if it had been so many days ago."""
    record(engine, events, (), datetime.now(UTC) - days * DAY)


def ids(database) -> set[str]:
    """The ids of the events that have content."""
    rows = database.rows("SELECT attributes FROM entry JOIN content USING (chain_id, seq) WHERE kind = 'event'")
    return {json.loads(attributes)["id"] for (attributes,) in rows}


def run(eraser: Engine, most: int = 1000, after: timedelta = timedelta(), who: str | None = "ann") -> Ran:
    return run_retention(eraser, KEYS, datetime.now(UTC) + after, most, who=who)


def test_each_event_is_kept_for_as_long_as_its_source_or_its_tenant_says(database, engine, eraser, configured, cli) -> None:
    aged(engine, 100, of("old"), of("old news", "news", "n"), of("removed source", "gone", "g"))
    aged(engine, 100, of("no policy", tenant="other"))
    aged(engine, 40, of("young"), of("month", "news", "n"))
    aged(engine, 1, of("new"), of("new news", "news", "n"))

    policies = cli.owner.json("retention")
    ran = run(eraser)

    assert [(None, 90, 2), ("news", 30, 2)] == [
        (each["source"], each["retention"] / 86_400, each["entries"]) for each in policies
    ]
    assert (4, False, ()) == (ran.erased.entries, ran.more, tuple(ran.unsound))
    assert {"no policy", "young", "new", "new news"} == ids(database)
    told = [json.loads(body) for (body,) in database.rows("SELECT body FROM content WHERE type = 'waxseal.erasure'")]
    assert {("ann", "retention of 90 days"), ("ann", "retention of 30 days")} == {(each["by"], each["reason"]) for each in told}
    assert {("ann", "retention", 2, "done")} <= set(database.rows("SELECT who, act, count, phase FROM audit"))
    assert 0 == run(eraser).erased.entries


def test_a_run_is_bounded_and_the_next_one_goes_on(database, engine, eraser, configured) -> None:
    aged(engine, 100, *(of(f"e{n}", subject=f"s{n}") for n in range(10)))

    first, second, third = run(eraser, 4), run(eraser, 4), run(eraser, 4)

    assert [(4, True), (4, True), (2, False)] == [(each.erased.entries, each.more) for each in (first, second, third)]
    assert set() == ids(database)


def test_another_policy_begins_with_the_oldest_entry(database, engine, eraser, configured, apply) -> None:
    aged(engine, 60, of("a"), of("news", "news", "n"))
    aged(engine, 20, of("b"), of("late news", "news", "n"))
    run(eraser)
    assert {"a", "b", "late news"} == ids(database)

    apply(FILE.replace("90d", "10d").replace(", retention: 30d", ""))
    run(eraser)

    assert set() == ids(database)
    assert apply(FILE.replace(", retention: 90d", "")).changed[0].details == ("retention: 864000 -> none",)
    aged(engine, 60, of("c"))
    assert 0 == run(eraser).erased.entries


def test_what_was_recorded_under_a_wrong_time_is_found_within_a_week(database, engine, eraser, configured) -> None:
    aged(engine, 100, of("a"))
    run(eraser)
    aged(engine, 200, of("late", subject="b"))

    assert 0 == run(eraser).erased.entries
    assert 1 == run(eraser, after=8 * DAY).erased.entries


def test_the_first_run_by_itself_erases_nothing_and_a_clock_that_jumps_holds_it(
    database, engine, eraser, configured, cli, tmp_path: Path
) -> None:
    aged(engine, 100, of("old"))
    aged(engine, 80, of("young"))
    settings = Settings(database_url=database.eraser_url, keys=database.key)
    blobs = Blobs(str(tmp_path / "blobs"))

    def turn() -> None:
        erase_due(eraser, settings, blobs, lambda: False)

    turn()
    assert {"old", "young"} == ids(database)
    database.run("UPDATE retention_run SET ran_at = now() - interval '400 days'")
    turn()
    assert {"old", "young"} == ids(database)
    assert 1 == shown("waxseal_retention_held")
    said = cli.owner.run("retention")
    assert "nothing is erased: the clock is 400 days after the last run" in said.output
    assert {"old", "young"} == ids(database)
    troubles = {each["kind"]: each["said"] for each in cli.json("status")[0]["troubles"]}
    assert "nothing is erased: the clock is 400 days after the last run" in troubles["retention"]

    assert "erased 1 entry" in cli.owner.output("retention", "--yes", "--by", "ann")
    assert {"young"} == ids(database)
    erased = shown("waxseal_erased_entries_total")
    aged(engine, 95, of("later"))
    database.run("DELETE FROM retention_progress")  # as a week later: the policy begins with the oldest entry
    turn()
    assert (0, erased + 1) == (shown("waxseal_retention_held"), shown("waxseal_erased_entries_total"))
    assert {"young"} == ids(database)
    assert shown("waxseal_retention_behind_seconds") >= 0


def shown(name: str) -> float:
    """The value that /metrics shows."""
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


def test_clocks_that_are_doubted() -> None:
    now = datetime(2026, 1, 8, tzinfo=UTC)

    def last(ago: timedelta) -> Run:
        return Run(now - ago, 0, more=False, held=None)

    assert [None, None, None] == [doubt(each, now, now) for each in (None, last(timedelta(hours=1)), last(LONGEST_PAUSE))]
    assert "before the last run" in str(doubt(last(-DAY), now, now))
    assert "8 days after the last run" in str(doubt(last(8 * DAY), now, now))
    assert "that of Postgres 2026-01-08 00:02:00" in str(doubt(None, now, now + timedelta(minutes=2)))


class Killed(BaseException):
    """The process ended here."""


def test_killed_at_any_statement_it_has_erased_what_its_entries_say_and_the_next_run_does_the_rest(
    database, engine, eraser, configured
) -> None:
    aged(engine, 100, *(of(f"e{n}", subject=f"s{n % 3}") for n in range(9)))
    at = 0
    while ids(database):
        at += 1
        step = iter(range(at))

        def die(*_: object, step: Iterator[int] = step) -> None:
            if next(step, None) is None:
                raise Killed

        hooks.listen(eraser, "before_cursor_execute", die)
        try:
            run(eraser, 2)
        except Killed:
            pass
        finally:
            hooks.remove(eraser, "before_cursor_execute", die)
        assert 9 - len(ids(database)) == sum(_listed(database))
    assert at > 10


def _listed(database) -> Iterator[int]:
    for (body,) in database.rows("SELECT body FROM content WHERE type = 'waxseal.erasure'"):
        yield from (last - first + 1 for first, last in json.loads(body)["seqs"])


def test_a_chain_that_is_not_sound_keeps_no_other_from_being_erased(database, engine, eraser, configured, cli) -> None:
    aged(engine, 100, *(of(f"e{n}", subject=f"s{n}") for n in range(3)))
    database.run("ALTER TABLE chain DISABLE TRIGGER forward_only")
    database.run("UPDATE chain SET hash = sha256('x') WHERE subject = 's1'")
    database.run("ALTER TABLE chain ENABLE ALWAYS TRIGGER forward_only")

    ran = run(eraser)

    assert (2, 1) == (ran.erased.entries, len(ran.unsound))
    assert {"e1"} == ids(database)
    database.run("DELETE FROM retention_progress")
    assert "1 chain is not sound" in cli.owner.output("retention", "--yes", code=2)


@pytest.mark.parametrize("wrong", ["1h", "0", "-3d", "forever", "40000d"])
def test_a_retention_is_a_day_at_least(apply, wrong) -> None:
    with pytest.raises(Exception, match=r"retention.*must be a d"):
        apply(FILE.replace("90d", wrong))


def test_retention_is_applied_and_shown(database, apply) -> None:
    shown = apply(dry_run=True)
    assert [] == database.rows("SELECT * FROM tenant")
    assert "created" == shown.changes[0].action
    apply()

    assert [("acme", 90 * 86_400), ("other", None)] == database.rows("SELECT name, retention FROM tenant ORDER BY 1")
    assert [] == apply().changed
    mailbox: Any = apply(FILE + MAILBOX).changes[-1].after
    assert 7 * 86_400 == mailbox.retention
    assert [(7 * 86_400,)] == database.rows("SELECT (settings ->> 'retention')::int FROM source WHERE name = 'support'")
    assert [] == apply(FILE + MAILBOX).changed


MAILBOX = """
mailboxes:
  - {tenant: acme, name: support, kind: imap, host: imap.example, username: u, password: "literal", retention: 7d}
"""
