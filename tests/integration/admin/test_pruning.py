"""Pruning: attempts in daily partitions, made ahead and dropped whole; and dead letters that were closed long ago."""

import time
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Engine, text

from ops.admin.erasure import keeping
from ops.runtime.db import transaction
from pipeline.deliver import judge
from pipeline.settle import Tried
from pipeline.store.admin import removal
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import attempt_partitions, deliveries
from schemas.dead_letter import DeadLetter
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from support.cli import Cli
from support.deliveries import claimed, event, record
from workers.delivery.store import DeliveryStore
from workers.relay.maintenance import AHEAD, make_partitions

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
ENDPOINT = Endpoint(1, "acme", "billing", "http://127.0.0.1:1/")


@pytest.fixture(autouse=True)
def _no_partitions(database) -> None:
    """Drops the partitions, which are of other years or of the test before."""
    database.run(
        "DO $$ DECLARE name text; BEGIN"
        " FOR name IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^attempt_[0-9]{8}$'"
        " LOOP EXECUTE 'DROP TABLE ' || name; END LOOP;"
        " ALTER TABLE attempt DROP CONSTRAINT IF EXISTS refused; END $$"
    )
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1:1/")


@pytest.fixture(autouse=True)
def today() -> date:
    """The day on which the test begins and ends."""
    now = datetime.now(UTC)
    if (left := datetime.combine(now.date() + DAY, datetime.min.time(), UTC) - now) < MINUTE:
        time.sleep(left.total_seconds())
    return datetime.now(UTC).date()


@pytest.fixture
def long_ago(today) -> date:
    return today - 40 * DAY


def make(database, first: date, days: int) -> int:
    return database.rows("SELECT make_attempt_partitions(%s, %s)", first, days)[0][0]


#: Attempts of one day, by its date and their number.
ATTEMPTS = (
    "INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status)"
    " SELECT 1, n, %s::timestamp AT TIME ZONE 'UTC' + n * interval '1 s', 0, 'delivered', 200 FROM generate_series(1, %s) n"
)


def attempt(database, day: date) -> None:
    """Records one, or fails if it had to wait for a lock."""
    with psycopg.connect(database.url, autocommit=True, options="-c lock_timeout=500ms") as conn:
        conn.execute(ATTEMPTS, (day, 1))
        assert conn.execute("SELECT 1 FROM attempt LIMIT 1").fetchone() == (1,)


def days(database) -> list[date]:
    """The days of the attached partitions."""
    rows = database.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempt'::regclass ORDER BY 1")
    return [datetime.strptime(name, "attempt_%Y%m%d").replace(tzinfo=UTC).date() for (name,) in rows]


def test_partitions_are_made_once_by_a_worker_that_may_make_nothing_else(cli, engine, database, today) -> None:
    with transaction(engine) as conn:
        made = [attempt_partitions.ensure(conn, today, 3), attempt_partitions.ensure(conn, today, 4)]

    assert [3, 1] == made
    assert [today + n * DAY for n in range(4)] == days(database)
    assert [("p",)] == database.rows("SELECT relkind FROM pg_class WHERE relname = 'attempt'")
    with pytest.raises(Exception, match="permission denied"), transaction(engine) as conn:
        conn.connection.driver_connection.execute("CREATE TABLE mine ()")


def test_the_relay_makes_the_partitions_of_a_week_ahead(cli, engine, database, today) -> None:
    make_partitions(engine)

    assert [today + n * DAY for n in range(-1, AHEAD)] == days(database)


def test_a_partition_is_a_day_in_utc_with_the_logs_index_and_checks(cli, database, long_ago) -> None:
    make(database, long_ago, 1)
    attempt(database, long_ago)
    with pytest.raises(psycopg.errors.CheckViolation, match="attempt_n_check"), database.connect() as conn:
        conn.execute(
            "INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status) VALUES (1, 0, %s, 0, 'retry', 500)",
            (long_ago,),
        )
    with pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
        attempt(database, long_ago + DAY)

    assert [(1,)] == database.rows("SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempt_by_delivery'::regclass")


def test_making_partitions_waits_for_no_reader_and_keeps_no_writer_waiting(cli, database, today) -> None:
    make(database, today, 1)
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM attempt")

        assert 2 == make(database, today + DAY, 2)  # which would fail if it had to wait for the reader
        attempt(database, today)


def held(engine: Engine, started_at: datetime, *ids: str) -> list[Tried]:
    record(engine, [event(id, f"order-{id}") for id in ids])
    lease, claims = claimed(engine)
    with transaction(engine) as conn:
        found: list[Delivery] = list(deliveries.load_leased(conn, [(each.id, lease) for each in claims]).deliveries)
    return [Tried(each, judge(each, ENDPOINT, Receipt(started_at, 0.1, 200), started_at, 0.0)) for each in found]


def test_settling_makes_the_partition_that_is_missing(cli, engine, database, today) -> None:
    late = datetime.now(UTC) + timedelta(days=200)
    tried = held(engine, datetime.now(UTC), "e-1", "e-2")
    tried += held(engine, late, "e-3")
    store = DeliveryStore(engine, 10.0)
    store.settle(tried)

    assert [today, late.date()] == days(database)
    assert [("delivered",)] * 3 == database.rows("SELECT state FROM delivery")
    assert [(3,)] == database.rows("SELECT count(*) FROM attempt")


def test_a_settlement_that_a_check_refuses_makes_no_partition(cli, engine, database, today) -> None:
    (tried,) = held(engine, datetime.now(UTC), "e-1")
    make(database, today, 1)
    with database.connect() as conn:
        conn.execute("ALTER TABLE attempt ADD CONSTRAINT refused CHECK (status <> 200)")
    DeliveryStore(engine, 10.0).settle([tried])

    assert [today] == days(database)
    assert [("leased",)] == database.rows("SELECT state FROM delivery")


@pytest.fixture
def old(cli, database, today, long_ago) -> Cli:
    """Partitions of four days long ago, of yesterday, of today and of tomorrow, each with attempts."""
    for first, count in ((long_ago, 4), (today - DAY, 3)):
        make(database, first, count)
        for n in range(count):
            database.run(ATTEMPTS, first + n * DAY, 10 + n)
    database.run("SELECT pg_stat_force_next_flush()")  # else they are counted again when the session reports them
    database.run("ANALYZE attempt")
    return cli.owner


def prune(cli: Cli, database, keep: date, *options: str) -> list[dict]:
    """Drops attempts older than `keep`."""
    age = (datetime.now(UTC) - datetime(keep.year, keep.month, keep.day, tzinfo=UTC)).total_seconds()
    return cli.json("prune", "--attempts-older-than", f"{int(age)}s", *options)


def test_what_would_be_dropped_is_shown_with_rows_and_size_and_nothing_is_dropped(old, database, long_ago) -> None:
    shown = prune(old, database, long_ago + 2 * DAY)
    before = days(database)

    assert [(f"{long_ago}", 10), (f"{long_ago + DAY}", 11)] == [(each["day"], each["attempts"]) for each in shown]
    assert all(each["bytes"] > 0 for each in shown)
    assert 7 == len(before)
    assert shown == prune(old, database, long_ago + 2 * DAY, "--dry-run")
    assert before == days(database)
    assert "add --yes" in old.run("prune", "--attempts-older-than", "30d").stderr
    assert [] == old.json("audit")


def test_old_attempts_are_dropped_in_whole_days_and_noted(old, database, long_ago) -> None:
    *_, told = prune(old, database, long_ago + 2 * DAY, "--yes", "--by", "ada")

    assert {"dropped_days": 2} == told
    assert [long_ago + 2 * DAY, long_ago + 3 * DAY] == days(database)[:2]
    assert [(12 + 13 + 10 + 11 + 12,)] == database.rows("SELECT count(*) FROM attempt")
    assert [("prune attempts", "ada", {"before": f"{long_ago + 2 * DAY}"}, 2, 2)] == [
        tuple(act[name] for name in ("act", "who", "filter", "planned", "done")) for act in old.json("audit")
    ]
    assert [] == database.rows(
        "SELECT relname FROM pg_class WHERE relname = 'attempt_' || to_char(%s::date, 'YYYYMMDD')", long_ago
    )


def test_the_last_days_are_never_dropped(old, database, today) -> None:
    refused = old.run("prune", "--attempts-older-than", "23h", "--yes")
    old.json("prune", "--attempts-older-than", "1d", "--yes")

    assert 2 == refused.exit_code
    assert "a day at least" in refused.stderr
    assert [today - DAY, today, today + DAY] == days(database)


@pytest.mark.parametrize("options", [[], ["--attempts-older-than", "30d", "--dry-run", "--yes"], ["--letters-older-than", "x"]])
def test_what_is_not_meant_is_refused(options, old, database) -> None:
    assert 2 == old.run("prune", *options).exit_code
    assert 7 == len(days(database))


def test_a_worker_may_not_prune(old, cli, database) -> None:
    ended = cli.run("prune", "--attempts-older-than", "30d", "--yes")

    assert (2, 7) == (ended.exit_code, len(days(database)))
    assert "use the database's owner" in ended.stderr
    assert 1 == ended.stderr.count("\n")


def test_pruning_gives_up_where_attempts_are_read_for_long_and_keeps_nobody_waiting(
    old, database, today, long_ago, monkeypatch
) -> None:
    monkeypatch.setattr(keeping, "BETWEEN", 0.0)
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM attempt")
        refused = old.run("prune", "--attempts-older-than", "30d", "--yes")
        attempt(database, today)

    assert 2 == refused.exit_code
    assert "dropped 0 of 4 days: another session" in refused.stderr
    assert [{"dropped_days": 4}] == old.json("prune", "--attempts-older-than", "30d", "--yes")[-1:]
    assert 3 == len(days(database))
    assert [(4, 4), (4, 0)] == [(act["planned"], act["done"]) for act in old.json("audit")]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Anchorage"])
def test_the_oldest_day_of_attempts_begins_at_midnight_utc_wherever_the_session_is(zone, old, engine, long_ago) -> None:
    with transaction(engine) as conn:
        conn.execute(text(f"SET LOCAL timezone = '{zone}'"))
        oldest = removal.oldest(conn)["attempts"]

    assert datetime(long_ago.year, long_ago.month, long_ago.day, tzinfo=UTC) == oldest


def test_a_partition_that_was_detached_and_not_dropped_is_dropped_by_the_next_run(old, database, today, long_ago) -> None:
    with database.connect() as conn:
        conn.execute(f"ALTER TABLE attempt DETACH PARTITION attempt_{long_ago:%Y%m%d}")
    shown = old.json("prune", "--attempts-older-than", "30d")

    assert ["detached", "attached", "attached", "attached"] == [each["state"] for each in shown]
    assert [{"dropped_days": 4}] == old.json("prune", "--attempts-older-than", "30d", "--yes")[-1:]
    assert [(0,)] == database.rows(
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'attempt_%%' AND relname < %s",
        f"attempt_{today - 2 * DAY:%Y%m%d}",
    )


def test_only_dead_letters_that_were_decided_long_ago_are_dropped(cli, engine, database) -> None:
    with transaction(engine) as conn:
        for days_ago in (200, 100, 10, 300):
            dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x")], datetime.now(UTC) - timedelta(days=days_ago))
        dead_letters.decide(conn, [1], "replayed", datetime.now(UTC) - 199 * DAY, "ada")
        dead_letters.decide(conn, [2], "discarded", datetime.now(UTC) - 99 * DAY, "ada")
        dead_letters.decide(conn, [3], "replayed", datetime.now(UTC), "ada")
    record(engine, [event("e-1")])

    assert [{"old_letters": 2}] == cli.owner.json("prune", "--letters-older-than", "90d")
    assert [{"old_letters": 2}, {"dropped_letters": 2}] == cli.owner.json("prune", "--letters-older-than", "90d", "--yes")
    assert [(3, "replayed"), (4, "open")] == database.rows("SELECT id, state FROM dead_letter ORDER BY id")
    assert [(1, 1, 1)] == database.rows(
        "SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM content), (SELECT count(*) FROM delivery)"
    )
    assert [("prune dead letters", 2)] == [(act["act"], act["done"]) for act in cli.json("audit")]
