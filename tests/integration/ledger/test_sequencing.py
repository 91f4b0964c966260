"""Every entry gets one position in its tenant's log, whatever dies, stands still, races or commits late."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ops.runtime.db import make_engine, passes, transaction
from pipeline.append import append
from pipeline.ledger.merkle import read_frontier
from pipeline.ledger.sequence import Incomplete, Sequenced, sequence
from pipeline.store.ledger.waiting import SPANS
from pipeline.store.log import pending, positions
from schemas.event import Event
from support.emptying import empty
from support.ledger.events import NOW, event_of, record
from support.net.ports import free_port
from support.waiting import wait_for
from workers.sequencer.worker import LOADED, LONGEST, MANY, POLL, Sequencer

KEY = b"k" * 32


def event(tenant: str, subject: str, number: int) -> Event:
    return event_of(sha256(tenant.encode()).digest(), tenant, subject, f"{subject}-{number}")


@pytest.fixture
def database(shared_database: Any) -> Iterator[Any]:
    yield shared_database
    empty(shared_database)


@pytest.fixture
def engine(database: Any, shared_engine: Engine) -> Engine:
    return shared_engine


@pytest.fixture(scope="module")
def sealer(shared_database: Any) -> Iterator[Engine]:
    """A pool with the rights of the sequencer and of the sealer."""
    engine = make_engine(shared_database.sealer_url, pool_size=3)
    yield engine
    engine.dispose()


def step(sealer: Engine, tenant: str = "acme", **terms: Any) -> Sequenced | None:
    with transaction(sealer) as conn:
        return sequence(conn, tenant, **terms)


def drain(sealer: Engine, tenant: str = "acme", **terms: Any) -> list[int]:
    """Sequences until nothing is left; the number of leaves of each transaction."""
    leaves = []
    while (got := step(sealer, tenant, **terms)) is not None and got.leaves:
        leaves.append(got.leaves)
    return leaves


def root(hashes: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it stands there."""
    if not hashes:
        return sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + root(hashes[:half]) + root(hashes[half:])).digest()


def whole(database: Any, tenant: str = "acme") -> int:
    """Checks that each entry of the tenant has one position, or is pending once, and gives the number of its leaves."""
    rows = database.rows(
        "SELECT position, leaf.chain_id, leaf.seq, hash FROM leaf JOIN log ON log.id = log_id"
        " JOIN entry ON entry.chain_id = leaf.chain_id AND entry.seq = leaf.seq"
        " WHERE log.tenant = %s AND entry.tenant = %s ORDER BY position",
        *(tenant, tenant),
    )
    ((size, frontier),) = database.rows("SELECT size, frontier FROM log WHERE tenant = %s", tenant) or [(0, b"")]
    assert list(range(size)) == [position for position, *_ in rows]
    assert read_frontier(size, frontier).root() == root([hash_ for *_, hash_ in rows])
    ends: dict[Any, int] = {}
    for _, chain, seq, _ in rows:
        assert seq == ends.get(chain, -1) + 1
        ends[chain] = seq
    for chain, first, last in database.rows(
        f"SELECT chain_id, first, last FROM {SPANS} AS waiting WHERE tenant = %s ORDER BY id", tenant
    ):
        assert first == ends.get(chain, -1) + 1
        ends[chain] = last
    assert ends == dict(database.rows("SELECT chain_id, max(seq) FROM entry WHERE tenant = %s GROUP BY 1", tenant))
    return int(size)


def test_every_entry_gets_one_position_in_the_order_of_its_chain(database, engine, sealer) -> None:
    for batch in range(4):
        record(engine, *(event("acme", f"s-{n % 7}", 100 * batch + n) for n in range(30)))
        record(engine, event("other", "s-1", batch))
        if batch % 2:
            drain(sealer, most=11)
    assert [4] == [sum(drain(sealer, "other"))]

    assert (120, 4) == (whole(database), whole(database, "other"))
    assert [] == database.rows("SELECT FROM log_pending")
    assert Sequenced(120, 0, more=False) == step(sealer)


def test_one_row_is_pending_for_each_tenant_and_statement(database, engine) -> None:
    record(engine, *(event(tenant, f"s-{n % 2}", n) for tenant in ("acme", "other") for n in range(50)))
    record(engine, event("acme", "s-1", 99))
    microseconds = int(NOW.timestamp() * 1_000_000)

    found = database.rows("SELECT tenant, firsts, counts, at FROM log_pending ORDER BY id")
    assert [("acme", [0, 0], [25, 25], microseconds), ("other", [0, 0], [25, 25], microseconds)] == sorted(found[:2])
    assert [("acme", [25], [1], microseconds)] == found[2:]
    chains = dict(database.rows("SELECT tenant, chain_ids FROM log_pending WHERE cardinality(chain_ids) = 2"))
    for tenant, chain_ids in chains.items():
        assert {*chain_ids} == {chain for (chain,) in database.rows("SELECT chain_id FROM chain WHERE tenant = %s", tenant)}


def test_a_statement_of_many_chains_notes_them_in_rows_of_a_thousand(database, engine, sealer) -> None:
    record(engine, *(event("acme", f"s-{n}", 0) for n in range(2100)))

    assert [100, 1000, 1000] == sorted(n for (n,) in database.rows("SELECT cardinality(chain_ids) FROM log_pending"))
    assert 2100 == sum(drain(sealer, most=1500)) == whole(database)


def test_a_long_range_is_taken_in_bounded_parts(database, engine, sealer) -> None:
    record(engine, *(event("acme", f"s-{n % 50 // 49}", n) for n in range(1000)))
    record(engine, event("acme", "s-0", 1000))

    first = step(sealer, most=300)
    assert (Sequenced(300, 300, more=True), 300) == (first, whole(database))
    assert [300, 300, 101] == drain(sealer, most=300)
    assert 1001 == whole(database)


@pytest.mark.parametrize("most", [1, 7, 25, 26, 60, 61, 75, 1000])
def test_rows_are_taken_whole_and_in_parts_and_without_chains_that_are_aside(database, engine, sealer, most) -> None:
    for batch in range(3):
        record(engine, *(event("acme", f"s-{n % (5 + batch)}", 100 * batch + n) for n in range(25)))
    chains = [chain.hex for (chain,) in database.rows("SELECT chain_id FROM chain ORDER BY chain_id")]
    aside = chains[2:4]
    ((kept,),) = database.rows("SELECT count(*) FROM entry WHERE chain_id = ANY(%s::uuid[])", aside)

    without = drain(sealer, most=most, aside=aside)
    assert (75 - kept, True) == (whole(database), max(without) <= most)
    assert kept == sum(drain(sealer, most=most))
    assert (75, []) == (whole(database), database.rows("SELECT FROM log_pending"))


def test_what_commits_late_is_sequenced(database, engine, sealer) -> None:
    sequencer = Sequencer(sealer)
    database.add_tenant()
    record(engine, event("acme", "s-1", 0))
    with engine.connect() as late, late.begin():
        append(late, [event("acme", "late", 0), event("acme", "s-1", 1)], {}, NOW)
        for number in range(5):  # looks that would pass over the ids of the open transaction, if it were not known to be open
            record(engine, event("acme", "s-2", number))
            sequencer._surveyed = float("-inf")
            sequencer.turn()
        assert 6 == whole(database)
    record(engine, event("acme", "s-1", 2))
    sequencer.turn()

    assert 9 == whole(database)


def test_what_commits_late_is_sequenced_if_no_transaction_began_after_its_own(database, engine, sealer) -> None:
    """Then no snapshot tells of it: its xmax is the number after that of the last transaction that has ended."""
    sequencer = Sequencer(sealer)
    database.add_tenant()
    record(engine, event("acme", "s-1", 0))
    sequencer.turn()
    with engine.connect() as late, late.begin():
        append(late, [event("acme", "late", 0)], {}, NOW)
        for _ in range(4):
            sequencer._surveyed = float("-inf")
            sequencer.turn()
    sequencer.turn()

    assert 2 == whole(database)


def test_a_look_that_waited_for_postgres_does_not_put_off_the_next_for_long(database, sealer, monkeypatch) -> None:
    looked = pending.waiting

    def waited(*given: Any) -> list[str]:
        time.sleep(0.5)
        return looked(*given)

    monkeypatch.setattr(pending, "waiting", waited)

    assert LONGEST == Sequencer(sealer).turn()


def test_what_is_gone_is_not_searched_again_while_a_snapshot_keeps_it(database, engine, sealer) -> None:
    """As while a backup runs: nothing that was deleted since can be removed."""
    database.add_tenant()
    sequencer = Sequencer(sealer)
    with database.connect() as backup:
        backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        backup.execute("SELECT FROM entry")
        for batch in range(4):
            record(engine, *(event("acme", f"s-{n}", batch) for n in range(500)))
            sequencer._surveyed = float("-inf")
            sequencer.turn()
        for _ in range(3):
            sequencer._surveyed = float("-inf")
            sequencer.turn()

        ((last,),) = database.rows("SELECT last_value FROM log_pending_id_seq")
        assert {"acme": last} == dict(sequencer._floors.all)
    assert 2000 == whole(database)


DYING = """
import os, signal, sys
from ops.runtime import db
from pipeline.ledger import sequence
from pipeline.store.log import positions

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(function):
    return lambda *given: (function(*given), die())

url, *steps = sys.argv[1:]
for step in steps:
    sys.stdin.readline()
    child = os.fork()
    if not child:
        if step != "committed":
            setattr(positions, step, dying(getattr(positions, step)))
        with db.transaction(db.make_engine(url)) as conn:
            sequence.sequence(conn, "acme", most=40)
        die()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    print(step, flush=True)
"""


def test_a_sequencer_that_is_killed_at_any_step_loses_and_repeats_nothing(database, engine, sealer) -> None:
    steps = ["lock", "place", "grow", "committed", "place", "committed"]
    sizes = [0, 0, 0, 40, 40, 50]  # a part of the first row, and the rest of it
    command = [sys.executable, "-c", DYING, database.sealer_url, *steps]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        for number, (expected, size) in enumerate(zip(steps, sizes, strict=True)):
            record(engine, *(event("acme", f"s-{n % 7}", 100 * number + n) for n in range(50)))
            program.stdin.write("\n")
            program.stdin.flush()
            assert f"{expected}\n" == program.stdout.readline()
            wait_for(lambda: not database.rows("SELECT FROM pg_locks WHERE locktype = 'advisory'"))
            assert size == whole(database)
    drain(sealer)

    assert 300 == whole(database)


def test_a_process_that_stands_still_in_a_transaction_loses_its_lock(database, engine, sealer, lateness) -> None:
    record(engine, *(event("acme", f"s-{n}", 0) for n in range(10)))
    choice = positions.Choice("acme", 0, (), 5)
    with pytest.raises((psycopg.Error, DBAPIError)) as lost, transaction(sealer) as conn:
        log, chosen = positions.lock(conn, choice, 0.5)
        positions.place(conn, log, choice, chosen)
        began = time.monotonic()
        assert step(sealer) is None
        wait_for(lambda: step(sealer))
        assert time.monotonic() - began < 5 + lateness()
        positions.grow(conn, log, 5, b"")

    assert passes(lost.value)
    assert 10 == whole(database)


def test_another_process_goes_on_within_seconds_when_one_stands_still_or_is_killed(database, engine, start, lateness) -> None:
    database.add_tenant()
    first, second = (start("sequencer", metrics_port=free_port(), log_level="error") for _ in range(2))
    recorded = 0

    def size() -> int:
        return sum(size for (size,) in database.rows("SELECT size FROM log"))

    def grown_over(least: int) -> bool:
        return size() > least

    for process, how in ((first, 0), (first, signal.SIGSTOP), (first, signal.SIGCONT), (second, signal.SIGKILL), (first, 0)):
        record(engine, *(event("acme", f"s-{n}", recorded) for n in range(1500)))
        recorded += 1500
        os.kill(process.pid, how)  # while this one is at work, or the other, or while both still start
        began, before = time.monotonic(), size()
        wait_for(partial(grown_over, min(before, recorded - 1)))
        assert recorded == 1500 or time.monotonic() - began < 5 + lateness()
        wait_for(partial(grown_over, recorded - 1))

    assert 7500 == whole(database)


def test_two_that_race_give_each_entry_one_position(database, engine, sealer) -> None:
    tenants = ("acme", "other")
    for tenant in tenants:
        database.add_tenant(tenant)
        record(engine, *(event(tenant, f"s-{n % 20}", n) for n in range(600)))
    racers = [Sequencer(sealer, most=30) for _ in range(2)]

    def race(racer: Sequencer) -> None:
        for _ in range(40):
            racer.turn()

    with ThreadPoolExecutor(2) as both:
        list(both.map(race, racers))
    assert [600, 600] == [whole(database, tenant) for tenant in tenants]


def test_tenants_do_not_wait_for_each_other(database, engine, sealer) -> None:
    for tenant in ("acme", "other"):
        database.add_tenant(tenant)
        record(engine, *(event(tenant, "s-1", n) for n in range(5)))
    sequencer = Sequencer(sealer)
    with transaction(sealer) as conn:
        positions.lock(conn, positions.Choice("acme", 0, (), 5), 60.0)
        sequencer.turn()
        assert (0, 5) == (whole(database), whole(database, "other"))
    sequencer.turn()

    assert 5 == whole(database)


def test_a_chain_that_lacks_an_entry_is_set_aside_and_holds_up_nothing_else(database, engine, sealer) -> None:
    database.add_tenant()
    record(engine, *(event("acme", f"s-{n % 3}", n) for n in range(9)))
    ((chain,),) = database.rows("SELECT chain_id FROM chain WHERE subject = 's-1'")
    with database.connect() as conn:
        conn.execute("ALTER TABLE entry DISABLE TRIGGER append_only")
        conn.execute("DELETE FROM entry WHERE chain_id = %s AND seq = 1", [chain])
        conn.execute("ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only")
    with pytest.raises(Incomplete):
        step(sealer)
    sequencer = Sequencer(sealer)
    for _ in range(3):
        sequencer.turn()
    record(engine, event("acme", "s-2", 99))
    sequencer.turn()

    assert [(7,)] == database.rows("SELECT size FROM log")
    assert 1 == REGISTRY.get_sample_value("waxseal_log_set_aside")
    assert [([chain], [0], [3])] == database.rows("SELECT chain_ids, firsts, counts FROM log_pending")


def test_what_is_pending_only_gets_less_in_replica_mode_too(database, engine) -> None:
    record(engine, *(event("acme", f"s-{n % 2}", n) for n in range(6)))
    refused = [
        "chain_ids = chain_ids || gen_random_uuid(), firsts = firsts || 0::bigint, counts = counts || 1::bigint, entries = 7",
        "chain_ids = chain_ids || chain_ids, firsts = firsts || firsts, counts = counts || counts, entries = 12",
        "chain_ids = ARRAY[chain_ids[1], chain_ids[1]]",
        "chain_ids = ARRAY[gen_random_uuid(), chain_ids[2]]",
        "counts = '{2,3}', entries = 5",
        "counts = '{3,4}', entries = 7",
        "firsts = '{1,0}'",
        "firsts = '{0,-1}', counts = '{3,4}', entries = 7",
        "firsts = '{3,0}', counts = '{0,3}', entries = 3",
        "chain_ids = chain_ids[1:1]",
        "chain_ids = chain_ids[1:1], firsts = firsts[1:1]",
        "chain_ids = '{}', firsts = '{}', counts = '{}', entries = 0",
        "chain_ids[2] = NULL",
        "firsts[2] = NULL",
        "counts[2] = NULL",
        "tenant = 'other'",
        "at = at + 1",
        "entries = 5",
        "entries = NULL",
    ]
    with database.connect() as owner, replica(database) as conn:
        for change in refused:
            said = f"UPDATE log_pending SET {change}"
            assert {INTEGRITY, CHECK} >= {refusal(lambda by=by, said=said: by.execute(said)) for by in (owner, conn)}, change
        conn.execute("UPDATE log_pending SET firsts = '{2,0}', counts = '{1,3}', entries = 4")
        conn.execute("UPDATE log_pending SET chain_ids = chain_ids[2:], firsts = firsts[2:], counts = counts[2:], entries = 3")
    assert [([0], [3], 3)] == database.rows("SELECT firsts, counts, entries FROM log_pending")


def test_a_chain_of_which_an_entry_between_others_is_not_pending_is_set_aside(database, engine, sealer) -> None:
    database.add_tenant()
    for number in range(3):
        record(engine, event("acme", "s-1", number))
    record(engine, *(event("acme", "s-2", n) for n in range(5)))
    ids = [id_ for (id_,) in database.rows("SELECT id FROM log_pending ORDER BY id")]
    database.run("DELETE FROM log_pending WHERE id = %s", ids[1])
    sequencer = Sequencer(sealer)
    for _ in range(3):
        sequencer.turn()

    assert [(5,)] == database.rows("SELECT size FROM log")
    assert [(ids[0],), (ids[2],)] == database.rows("SELECT id FROM log_pending ORDER BY id")


@pytest.mark.parametrize("wrong", [1, 10**15])
def test_a_wrong_number_of_pending_entries_changes_no_position(database, engine, sealer, wrong) -> None:
    record(engine, *(event("acme", f"s-{n % 3}", n) for n in range(20)))
    record(engine, event("acme", "s-1", 20))
    with database.connect() as conn:
        conn.execute("ALTER TABLE log_pending DISABLE TRIGGER forward")
        conn.execute("UPDATE log_pending SET entries = %s", [wrong])
        conn.execute("ALTER TABLE log_pending ENABLE ALWAYS TRIGGER forward")

    assert 21 == sum(drain(sealer)) == whole(database)


def test_it_rests_longer_after_a_turn_with_much_to_do(database, engine, sealer, monkeypatch) -> None:
    monkeypatch.setattr("workers.sequencer.worker.SHARE", 1e9)
    database.add_tenant()
    sequencer = Sequencer(sealer)
    record(engine, *(event("acme", f"s-{n % 9}", n) for n in range(MANY)))

    assert [LOADED, POLL] == [sequencer.turn() for _ in range(2)]


def test_a_closed_log_grows_no_more(database, engine, sealer) -> None:
    record(engine, event("acme", "s-1", 0))
    drain(sealer)
    database.run("UPDATE log SET state = 'closed'")
    record(engine, event("acme", "s-1", 1))

    assert Sequenced(1, 0, more=False) == step(sealer)


@contextmanager
def replica(database: Any) -> Iterator[psycopg.Connection]:
    with database.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        yield conn


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(psycopg.Error) as refused:
        act()
    return refused.value.sqlstate or ""


INTEGRITY, CHECK, DENIED = "23000", "23514", "42501"
TABLES = ("log", "log_pending", "leaf", "checkpoint", "anchor", "log_key")


def test_leaves_go_on_densely_and_a_log_only_grows_in_replica_mode_too(database, engine, sealer) -> None:
    record(engine, *(event("acme", "s-1", n) for n in range(4)))
    drain(sealer, most=2)
    database.run("INSERT INTO checkpoint SELECT id, 2, sha256(''), 'x', now() FROM log")
    database.run("INSERT INTO anchor (log_id, size, kind, place, at) SELECT id, 2, 'folder', '/x', now() FROM log")
    put = "INSERT INTO leaf SELECT log.id, {}, gen_random_uuid(), 0 FROM log"
    refused = [
        put.format(5),
        put.format("unnest(ARRAY[4, 6])"),
        "INSERT INTO leaf SELECT 99, 0, gen_random_uuid(), 0",
        "UPDATE log SET size = size - 1, frontier = sha256('')||sha256('')",
        "UPDATE log SET size = size + 1, frontier = frontier||sha256('')",
        "UPDATE log SET frontier = sha256('')",
        "UPDATE log SET tenant = 'other'",
        "DELETE FROM log",
        "TRUNCATE log CASCADE",
        *(f"DELETE FROM {table}" for table in ("leaf", "checkpoint", "anchor")),
        *(f"TRUNCATE {table} CASCADE" for table in ("leaf", "checkpoint", "anchor")),
        "UPDATE leaf SET position = 9",
        "UPDATE checkpoint SET note = 'y'",
        "UPDATE anchor SET place = 'y'",
    ]
    with database.connect() as owner, replica(database) as conn:
        for statement in refused:
            assert [INTEGRITY] * 2 == [refusal(lambda by=by, said=statement: by.execute(said)) for by in (owner, conn)], (
                statement
            )
    assert "23505" == refusal(lambda: database.run("INSERT INTO leaf SELECT log_id, 4, chain_id, seq FROM leaf LIMIT 1"))
    assert 4 == whole(database)


def test_what_is_appended_in_replica_mode_is_pending_too(database, engine) -> None:
    record(engine, event("acme", "s-1", 0))
    with replica(database) as conn:
        conn.execute(
            "INSERT INTO entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc)"
            " SELECT chain_id, 1, hash, sha256('\\x00'::bytea || entry_envelope(chain_id, 1, hash, tenant, at, kind, pc)),"
            " tenant, at, kind, pc FROM entry"
        )

    assert [([0], [1]), ([1], [1])] == database.rows("SELECT firsts, counts FROM log_pending ORDER BY id")


PUT_PENDING = (
    "INSERT INTO log_pending (tenant, chain_ids, firsts, counts, entries, at)"
    " VALUES ('acme', ARRAY[gen_random_uuid()], '{0}', '{1}', 1, 0)"
)
FORGED = """
    CREATE TEMP TABLE entry (tenant text, chain_id uuid, seq bigint, at bigint);
    CREATE TRIGGER forged AFTER INSERT ON entry REFERENCING NEW TABLE AS appended
      FOR EACH STATEMENT EXECUTE FUNCTION note_pending()"""


def test_a_writer_can_do_nothing_to_a_log(database, engine) -> None:
    record(engine, event("acme", "s-1", 0))
    forged = [
        PUT_PENDING,
        "INSERT INTO log (tenant) VALUES ('acme')",
        "INSERT INTO leaf VALUES (1, 0, gen_random_uuid(), 0)",
        "INSERT INTO checkpoint VALUES (1, 0, sha256(''), '', now())",
        "UPDATE log SET size = 1",
        "UPDATE log_pending SET firsts = '{1}'",
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"TRUNCATE {table}" for table in TABLES),
        "SELECT private FROM log_key",
        "ALTER TABLE entry DISABLE TRIGGER pending",
        FORGED,
    ]
    with psycopg.connect(database.worker_url, autocommit=True) as writer:
        assert [(DENIED, each) for each in forged] == [
            (refusal(lambda each=each: writer.execute(each)), each) for each in forged
        ]
    assert 1 == len(database.rows("SELECT FROM log_pending"))


def test_the_sequencer_can_position_and_nothing_else(database, engine) -> None:
    record(engine, event("acme", "s-1", 0))
    refused = [
        PUT_PENDING,
        "INSERT INTO entry SELECT * FROM entry",
        "UPDATE chain SET seq = 1",
        "SELECT FROM content",
        "SELECT fingerprint_key FROM tenant",
        "UPDATE log SET state = 'closed'",
        *(f"DELETE FROM {table}" for table in TABLES if table != "log_pending"),
        *(f"TRUNCATE {table}" for table in TABLES),
    ]
    with psycopg.connect(database.sealer_url, autocommit=True) as sealer:
        assert [(DENIED, each) for each in refused] == [
            (refusal(lambda each=each: sealer.execute(each)), each) for each in refused
        ]
