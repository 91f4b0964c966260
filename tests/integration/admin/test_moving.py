import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops.admin.bulk import Tally
from ops.admin.doctor.finding import Finding
from ops.admin.doctor.move_checks import check_moves
from ops.admin.moving.cells import opened
from ops.admin.moving.copying import compare, copy_ledger, verified
from ops.admin.moving.finishing import begin_to_finish, delete_ledger
from ops.admin.moving.freezing import freeze
from ops.admin.moving.history import bring_history
from ops.admin.moving.move_plan import begin, known
from ops.errors import OpsError
from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Place
from ops.settings import Settings, settings_of
from pipeline.append import append, open_batch
from pipeline.fanout import subscriptions
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.merkle import read_frontier
from pipeline.ledger.notes import Signer, new_private, sign
from pipeline.ledger.sequence import sequence
from pipeline.store.config import catalog
from pipeline.store.log import checkpoints
from schemas.blob import LARGEST_INLINE
from schemas.ledger.log_names import log_origin
from support.ingest import running
from support.ledger.events import event_of, record
from support.net.s3 import make_bucket, variables
from support.queues import depth, emptied, publish
from support.waiting import wait_for
from workers.commands import forward, move_tenant
from workers.commands.forward import make_queue, waiting
from workers.sealer.board import Board
from workers.sealer.sealing import Sealing

KEY = b"k" * 32
PRIVATE = new_private()


@pytest.fixture
def other(another_database) -> Any:
    """The database of the cell that the tenant comes to."""
    fresh = another_database
    fresh.run("INSERT INTO tenant (name, fingerprint_key) VALUES ('other', %s)", fresh.vault.encrypt(KEY))
    fresh.add_source("elsewhere", "amqp", tenant="other")
    return fresh


@pytest.fixture
def there(servers, other, tmp_path) -> Path:
    """A file of the variables of that cell."""
    told = {"DATABASE_URL": other.url, "AMQP_URL": servers.amqp_url, "KEYS": other.key, "BLOBS": tmp_path / "there"}
    (tmp_path / "there").mkdir()
    (tmp_path / "blobs").mkdir()
    path = tmp_path / "cell"
    path.write_text("".join(f"WAXSEAL_{name}={value}\n" for name, value in {**told, "LOG_ORIGIN": "ledger.example"}.items()))
    return path


def test_a_tenant_moves_with_its_ledger_and_its_work(servers, database, other, there, cli, channel, tmp_path) -> None:
    configured(database)
    blobs, blobs_there = Blobs(str(tmp_path / "blobs")), Blobs(str(tmp_path / "there"))
    recorded_before(database, blobs)
    worked_before(database)
    emptied(channel)
    owner = cli.owner.but(log_origin="ledger.example")
    bundle = tmp_path / "before.jsonl"
    owner.output("export", "acme", "-o", bundle)

    assert "12 entries" in owner.output("tenant", "move", "acme", "--to", there)
    make_queue(servers.amqp_url, "acme")
    with running(database, servers.amqp_url, blobs) as worker:
        with opened("acme", here(servers, database, tmp_path), there) as route:
            copy_ledger(route, begin(route), most=4)
            owner.output("erase", "acme", "s1", "--reason", "asked", "--by", "ann", "--yes")
            freeze(route)
        publish(channel, "kept-1", "kept-2", "kept-3")
        wait_for(lambda: waiting(servers.amqp_url, "acme") == 3)
        worker.stop()
    with pytest.raises(psycopg.errors.SerializationFailure, match="acme is moving"):
        recorded(database, "late")
    owner.output("tenant", "move", "acme", "--to", there, "--yes")
    with running(other, servers.amqp_url, blobs_there):
        wait_for(lambda: other.rows("SELECT count(*) FROM entry WHERE tenant = 'acme'") == [(16,)])
    sequenced(other)

    assert [*ids(database), "kept-1", "kept-2", "kept-3"] == ids(other)
    assert "early-1" not in ids(other)  # it had been copied before it was erased
    assert_alike(database, other)
    assert_work_came(database, other)
    verified = owner.but(database_url=other.url, keys=other.key, blobs=tmp_path / "there")
    assert 0 == verified.run("verify", "--tenant", "acme").exit_code
    assert 0 == owner.run("verify", "--tenant", "acme").exit_code
    assert 0 == owner.run("verify-bundle", bundle).exit_code
    with pytest.raises(psycopg.errors.SerializationFailure, match="acme is moved"):
        recorded(database, "late")
    assert [("moved", 1)] == database.rows("SELECT state, epoch FROM tenant_move")
    assert ["move"] == [each.check for each in found_by_doctor(database)]
    assert "acme: moved, to" in owner.output("status", "--over", 0)
    assert [("arrived", 1)] == other.rows("SELECT state, epoch FROM tenant_move")


def test_a_move_that_is_taken_back_loses_nothing_and_can_be_made_again(
    servers, database, other, there, cli, channel, tmp_path
) -> None:
    configured(database)
    emptied(channel)
    owner = cli.owner.but(log_origin="ledger.example")
    recorded(database, "before")
    make_queue(servers.amqp_url, "acme")
    with running(database, servers.amqp_url, Blobs(str(tmp_path / "blobs"))):
        with opened("acme", here(servers, database, tmp_path), there) as route:
            copy_ledger(route, begin(route))
            freeze(route)
        elsewhere = there.with_name("elsewhere")
        elsewhere.write_text(there.read_text().replace(other.url, database.url).replace("127.0.0.1", "localhost"))
        assert "is moving, to 127.0.0.1" in owner.run("tenant", "move", "acme", "--to", elsewhere).stdout
        elsewhere.write_text(there.read_text().replace("127.0.0.1", "localhost"))  # it is the same cell
        assert "Nothing is in the way" in owner.output("tenant", "move", "acme", "--to", elsewhere)
        publish(channel, "kept-1", "kept-2")
        wait_for(lambda: waiting(servers.amqp_url, "acme") == 2)

        assert "2 messages" in owner.output("tenant", "move", "acme", "--to", there, "--abort", "--yes")
        publish(channel, "after")
        wait_for(lambda: database.rows("SELECT count(*) FROM entry") == [(4,)])
    sequenced(database)
    assert ["before", "kept-1", "kept-2", "after"] == ids(database)
    assert [] == database.rows("SELECT state FROM tenant_move")
    assert [(False, 2)] == database.rows("SELECT coalesce(bool_or(forced), false), 2 FROM endpoint_health")

    owner.output("tenant", "move", "acme", "--to", there, "--yes")
    assert ids(database) == ids(other)
    refused = owner.run("tenant", "move", "acme", "--to", there, "--abort", "--yes")
    assert (2, True) == (refused.exit_code, "lives in" in refused.stderr)
    publish(channel, "still-here")
    with running(database, servers.amqp_url, Blobs(str(tmp_path / "blobs"))):
        wait_for(lambda: waiting(servers.amqp_url, "acme") == 1)
    assert "forwarded 1 message" in owner.output("tenant", "forward", "acme", "--to", there, "--once")
    emptied(channel)


def test_the_freeze_waits_for_who_is_recording_and_refuses_who_records_later(
    servers, database, there, cli, tmp_path, other
) -> None:
    configured(database)
    engine = make_engine(database.worker_url)
    early, late = (event_of(KEY, "acme", name, name) for name in ("early", "late"))
    with opened("acme", here(servers, database, tmp_path), there) as route:
        begin(route)
        with ThreadPoolExecutor(1) as pool, engine.connect() as records, engine.connect() as has_read:
            opened_late = open_batch(has_read, [late])
            append(records, [early], {}, datetime.now(UTC))
            freezing = pool.submit(freeze, route)
            wait_for(lambda: database.rows("SELECT state FROM tenant_move") == [("moving",)])
            with pytest.raises(psycopg.errors.SerializationFailure, match="acme is moving"):
                append(has_read, [late], {}, datetime.now(UTC), opened_late)
            assert not freezing.done()
            records.commit()
            freezing.result(30)
    engine.dispose()
    assert ["early"] == ids(database)


def test_whoever_moves_is_told_to_go_on_when_a_database_goes_away(servers, database, other, there, tmp_path) -> None:
    with (
        pytest.raises(OpsError, match="run the same command again"),
        opened("acme", here(servers, database, tmp_path), there) as route,
        transaction(route.target.engine) as conn,
    ):
        conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def test_what_was_settled_comes_after_the_tenant_in_pieces(servers, database, other, there, cli, channel, tmp_path) -> None:
    configured(database)
    emptied(channel)
    recorded_before(database, Blobs(str(tmp_path / "blobs")))
    settled_before(database)
    told_before(database)
    owner = cli.owner.but(log_origin="ledger.example")
    owner.output("tenant", "move", "acme", "--to", there, "--yes")
    found = {query: database.rows(query) for query in HISTORY}
    for query, rows in found.items():
        assert [] != rows == other.rows(query)
    assert [("discarded", None), ("replayed", None)] == other.rows(
        "SELECT state, body FROM dead_letter WHERE state <> 'open' ORDER BY state"
    )
    moved, acts = owner.but(database_url=other.url, keys=other.key), owner.json("audit", "--tenant", "acme")
    *came, arrived = moved.json("audit", "--tenant", "acme")
    assert ("tenant arrive", None) == (arrived["act"], arrived["cell"])
    assert [each["act"] for each in acts] == [each["act"] for each in came] == ["tenant leave", "dead replay", "erase"]
    erased = came[-1]
    assert ("ann", 4, 3, "asked") == tuple(erased[name] for name in ("who", "planned", "done", "reason"))
    assert f"(in {erased['cell']})" in moved.output("events", "--tenant", "acme")
    other.run("DELETE FROM tenant_history; DELETE FROM attempt; DELETE FROM delivery WHERE state = 'delivered'")
    other.run("DELETE FROM dead_letter WHERE state <> 'open'")
    with opened("acme", here(servers, database, tmp_path), there) as route:
        assert 6 + 2 + len(acts) == bring_history(route, most=1)
        assert 0 == bring_history(route)
    assert found == {query: other.rows(query) for query in HISTORY}


def test_the_copy_left_behind_is_deleted_when_all_has_gone_on_and_the_tenant_may_come_back(
    servers, database, other, there, cli, channel, tmp_path
) -> None:
    configured(database)
    blobs = Blobs(str(tmp_path / "blobs"))
    recorded_before(database, blobs)
    worked_before(database)
    settled_before(database)
    others_too(database)
    emptied(channel)
    owner, command = cli.owner.but(log_origin="ledger.example"), ("tenant", "move", "acme", "--to", there)
    early = owner.run(*command, "--finish")
    assert (1, True) == (early.exit_code, "has not moved" in early.stdout)
    owner.output(*command, "--yes")
    left = ids(other)
    publish(channel, "kept-1")
    with running(database, servers.amqp_url, blobs):
        wait_for(lambda: waiting(servers.amqp_url, "acme") == 1)
    kept = owner.run(*command, "--finish", "--yes")
    assert (2, True) == (kept.exit_code, "1 messages are kept" in kept.stderr)
    owner.output("tenant", "forward", "acme", "--to", there, "--once")
    emptied(channel)
    assert "12 entries" in owner.output(*command, "--finish")
    with database.connect() as conn, pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"):
        conn.execute("SELECT set_config('waxseal.finishing', CAST(id AS text), false) FROM tenant_move")
        conn.execute("DELETE FROM entry WHERE tenant = 'acme'")

    with opened("acme", here(servers, database, tmp_path), there) as route:
        begin_to_finish(route, known(route))
        with pytest.raises(Died):
            delete_ledger(route, known(route), Tally(), dying, most=4)
    assert 0 < database.rows("SELECT count(*) FROM chain WHERE tenant = 'acme'")[0][0] < 3
    owner.output("verify")  # the chains that are left are whole
    with pytest.raises(psycopg.errors.SerializationFailure, match="acme is finishing"):
        recorded(database, "late")
    assert ["move"] == [each.check for each in found_by_doctor(database)]
    assert "is deleted here" in owner.output(*command, "--finish", "--yes")

    assert {} == left_of(database, "acme")
    assert ["e-rest"] == [id_ for (id_,) in database.rows(f"SELECT {ID} FROM content")]
    assert [(1, "delivered")] == database.rows("SELECT count(*), max(state) FROM delivery")
    with database.connect() as conn, pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"):
        conn.execute("DELETE FROM entry")
    assert left == ids(other)
    assert 0 == owner.run("verify").exit_code
    first = tmp_path / "first"
    first.write_text(
        there.read_text().replace(other.url, database.url).replace(other.key, database.key).replace("/there", "/blobs")
    )
    second = owner.but(database_url=other.url, keys=other.key, blobs=tmp_path / "there")
    second.output("tenant", "move", "acme", "--to", first, "--yes")
    assert left == ids(database)
    assert 0 == owner.run("verify", "--tenant", "acme").exit_code
    assert [("arrived", 2)] == database.rows("SELECT state, epoch FROM tenant_move")
    assert THERE_AND_BACK == database.rows("SELECT act, cell IS NULL FROM audit WHERE tenant = 'acme' ORDER BY at")


def test_a_log_that_was_begun_anew_moves_with_those_before_it(servers, database, other, there, cli, channel, tmp_path) -> None:
    configured(database)
    emptied(channel)
    recorded_before(database, Blobs(str(tmp_path / "blobs")))
    sequenced(database)
    published, bundle = tmp_path / "published", tmp_path / "before.jsonl"
    owner = cli.owner.but(log_origin="ledger.example", log_files=published)
    seal(database, published)
    owner.output("export", "acme", "-o", bundle)
    (key,) = owner.json("log", "key", "acme")
    recorded(database, "in-no-checkpoint-of-the-first")
    sequenced(database)
    owner.output("log", "new-origin", "acme", "--yes")
    recorded(database, "after")
    sequenced(database)
    seal(database, published)

    sizes: list[int] = []
    with opened("acme", here(servers, database, tmp_path), there) as route:
        with pytest.raises(Died):
            copy_ledger(route, begin(route), dying_after_pieces(3, sizes), most=8)
        assert [8, 13, 8] == sizes
        assert 13 < verified(route)  # what only the closed log has of it so far is no fault
        with altered(other), pytest.raises(OpsError, match="the log differs between the cells at 13"):
            compare(route)
    owner.output("tenant", "move", "acme", "--to", there, "--yes")
    for query in LOGS:
        assert [] != database.rows(query) == other.rows(query)
    moved = owner.but(database_url=other.url, keys=other.key, blobs=tmp_path / "there", log_files=tmp_path / "published-there")
    for cell in (owner, moved):
        assert 0 == cell.run("verify", "--tenant", "acme").exit_code
    kept = published / "acme" / "checkpoint"
    assert "intact: 12 entries" in owner.output("verify-bundle", bundle, "--vkey", key["vkey"], "--checkpoint", kept)
    assert owner.json("log", "key", "acme") == moved.json("log", "key", "acme")
    recorded(other, "there")
    sequenced(other)
    seal(other, tmp_path / "published-there")
    assert [(1, "closed", 12), (2, "open", 16)] == other.rows(
        "SELECT incarnation, state, max(checkpoint.size) FROM log JOIN checkpoint ON log_id = id GROUP BY 1, 2 ORDER BY 1"
    )
    owner.output("tenant", "move", "acme", "--to", there, "--finish", "--yes")
    assert {} == left_of(database, "acme")
    assert 0 == moved.run("verify", "--tenant", "acme").exit_code


#: The moves of a tenant in the audit of the first cell, and whether they were acts of that cell: none came back as another one.
THERE_AND_BACK = [
    ("tenant arrive", False),
    ("tenant leave", True),
    ("tenant finish", True),
    ("tenant arrive", True),
    ("tenant leave", False),
]


def test_bodies_go_from_bucket_to_bucket_and_what_is_left_there_is_for_the_eraser(
    servers, database, other, there, cli, channel, tmp_path, monkeypatch, s3
) -> None:
    configured(database)
    emptied(channel)
    for name, value in variables(s3).items():
        monkeypatch.setenv(name, value)
    first, second = make_bucket(s3), make_bucket(s3)
    recorded_before(database, Blobs(first))
    there.write_text(there.read_text().replace(str(tmp_path / "there"), second))
    owner, command = cli.owner.but(log_origin="ledger.example", blobs=first), ("tenant", "move", "acme", "--to", there, "--yes")
    owner.output(*command)
    ((reference,),) = other.rows("SELECT blob FROM content WHERE blob IS NOT NULL")
    assert bytes(LARGEST_INLINE + 1) == Blobs(second).get("acme", reference)
    owner.but(database_url=other.url, keys=other.key, blobs=second).output("verify", "--tenant", "acme")
    owner.output(*command, "--finish")
    assert [("acme", reference)] == database.rows("SELECT tenant, reference FROM erased_blob")


def test_of_what_comes_to_several_ingests_while_a_tenant_moves_nothing_is_lost_or_doubled(
    servers, database, other, there, channel, tmp_path
) -> None:
    configured(database)
    emptied(channel)
    sent = [f"e-{number}" for number in range(200)]
    with opened("acme", here(servers, database, tmp_path), there) as route:
        with several(database, servers, tmp_path / "blobs"), ThreadPoolExecutor(1) as pool:
            publish(channel, *sent[:100])
            moving = pool.submit(move_tenant.move, route, "ann", lambda _line: None)
            for number, name in enumerate(sent[100:]):
                if number == 50:
                    wait_for(lambda: database.rows("SELECT state FROM tenant_move") in ([("moving",)], [("moved",)]))
                publish(channel, name)
            moving.result(60)
            emptied_by_now(channel)
        with several(other, servers, tmp_path / "there"):
            forward.forward(route)
            wait_for(lambda: other.rows("SELECT count(*) FROM entry WHERE tenant = 'acme'") == [(len(sent),)])
            emptied_by_now(channel)
    sequenced(other)
    assert sorted(sent) == sorted(ids(other))
    assert 100 <= len(ids(database)) < len(sent)


@contextmanager
def several(database, servers, blobs: Path) -> Iterator[None]:
    """Three ingests at once, which promise no order within a subject."""
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(running(database, servers.amqp_url, Blobs(str(blobs))))
        yield


def dying(_done: int) -> None:
    raise Died


def dying_after_pieces(most: int, sizes: list[int]) -> Callable[[int], None]:
    def show(size: int) -> None:
        sizes.append(size)
        if len(sizes) == most:
            raise Died

    return show


@contextmanager
def altered(database) -> Iterator[None]:
    """The closed log has another root, against all triggers."""
    change = """ALTER TABLE log DISABLE TRIGGER forward; UPDATE log SET frontier = {} || substr(frontier, 33)
                WHERE state = 'closed'; ALTER TABLE log ENABLE ALWAYS TRIGGER forward"""
    ((before,),) = database.rows("SELECT substr(frontier, 1, 32) FROM log WHERE state = 'closed'")
    database.run(change.format("sha256('another')"))
    yield
    database.run(change.format(f"'\\x{bytes(before).hex()}'::bytea"))


def seal(database, place: Path) -> None:
    """Sign the tenant's log, as the sealer does, and publish it at the place."""
    engine = make_engine(database.sealer_url)
    with transaction(engine) as conn:
        logs = checkpoints.open_logs(conn)
    sealing = Sealing(engine, Place(str(place)), "ledger.example", database.vault, Board())
    assert [True] == [sealing.seal(log) for log in logs if log.tenant == "acme"]
    engine.dispose()


#: What a tenant's logs are made of, without the ids of the cell.
LOGS = (
    "SELECT incarnation, state, size, frontier FROM log ORDER BY 1",
    "SELECT incarnation, position, chain_id, seq FROM leaf JOIN log ON log.id = log_id ORDER BY 1, 2",
    "SELECT incarnation, checkpoint.size, root, note, signed_at FROM checkpoint JOIN log ON log.id = log_id ORDER BY 1, 2",
    "SELECT incarnation, public, log_key.state, created_at FROM log_key JOIN log ON log.id = log_id ORDER BY 1, 2",
)


ID = "convert_from(attributes, 'UTF8')::json ->> 'id'"

#: What an operator looks for of what was settled before, without the ids of the cell.
HISTORY = (
    """SELECT name, delivery.state, seq, delivery.attempts, settled_at, attempt.n, attempt.started_at, attempt.status
       FROM delivery JOIN endpoint ON endpoint.id = endpoint_id JOIN attempt ON attempt.delivery_id = delivery.id
       WHERE delivery.state = 'delivered' ORDER BY seq, n""",
    """SELECT dead_letter.stage, dead_letter.state, dead_letter.reason, decided_by, endpoint.name, delivery.seq
       FROM dead_letter LEFT JOIN delivery ON delivery.id = delivery_id
       LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
       WHERE dead_letter.state <> 'open' AND decided_by <> 'tenant move' ORDER BY stage""",
    """SELECT at, operator_event.kind, operator_event.tenant, endpoint.name, source.name, chain_id, detail
       FROM operator_event LEFT JOIN endpoint ON endpoint.id = endpoint_id LEFT JOIN source ON source.id = source_id
       WHERE operator_event.tenant = 'acme' ORDER BY at, detail""",
    """SELECT act.at, act.who, act.act, act.filter, act.object, act.reason, act.count, ending.at, ending.count
       FROM audit AS act LEFT JOIN audit AS ending ON ending.begun = act.id
       WHERE act.begun IS NULL AND act.tenant = 'acme' AND act.act <> 'tenant arrive' ORDER BY act.at""",
)


def told_before(database) -> None:
    """Two operator events; an erasure, a replay that was cut off, and an act on all tenants."""
    for statement in (
        """INSERT INTO operator_event (at, kind, tenant, endpoint_id, detail)
           SELECT now() - interval '2 days', 'breaker_opened', 'acme', max(id), 'it was away' FROM endpoint""",
        """INSERT INTO operator_event (at, kind, tenant, source_id, detail)
           SELECT now() - interval '1 day', 'duplicate_differs', 'acme', max(id), 'another body' FROM source""",
        """INSERT INTO audit (at, who, act, filter, count, phase, tenant, reason)
           VALUES (now() - interval '1 day', 'ann', 'erase', '{"subject": "s1"}', 4, 'begun', 'acme', 'asked')""",
        """INSERT INTO audit (at, who, act, filter, count, phase, begun)
           SELECT at + interval '1 s', who, act, filter, 3, 'done', id FROM audit""",
        """INSERT INTO audit (at, who, act, filter, count, phase, tenant)
           VALUES (now() - interval '1 hour', 'bob', 'dead replay', '{"tenant": "acme"}', 9, 'begun', 'acme')""",
        "INSERT INTO audit (at, who, act, filter, count) VALUES (now(), 'bob', 'prune audit', '{}', 9)",
    ):
        database.run(statement)


def settled_before(database) -> None:
    """Four deliveries of the first endpoint that were delivered, one at the second try; two closed dead letters."""
    for statement in (
        """UPDATE delivery SET state = 'delivered', next_attempt_at = NULL, settled_at = now() - interval '1 hour', attempts = 1
           WHERE id IN (SELECT id FROM delivery WHERE endpoint_id = (SELECT min(id) FROM endpoint) AND state = 'pending'
                        ORDER BY id DESC LIMIT 4)""",
        """INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status)
           SELECT id, 1, now() - interval '1 hour', 1, 'delivered', 200 FROM delivery WHERE state = 'delivered'""",
        """INSERT INTO dead_letter (stage, state, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at,
                                    decided_at, decided_by)
           SELECT 'deliver', 'replayed', 'exhausted', '', 'acme', endpoint_id, id, now(), now(), now(), 'ann' FROM delivery
           WHERE state = 'delivered' ORDER BY id DESC LIMIT 1""",
        """INSERT INTO dead_letter (stage, state, reason, detail, tenant, body, first_at, last_at, decided_at, decided_by)
           VALUES ('admit', 'discarded', 'malformed', '', 'acme', 'secret', now(), now(), now(), 'ann')""",
    ):
        database.run(statement)


def others_too(database) -> None:
    """Another tenant in the same cell, with an entry and a delivery."""
    database.run("INSERT INTO tenant (name, fingerprint_key) VALUES ('rest', %s)", database.vault.encrypt(b"r" * 32))
    engine = make_engine(database.url)
    record(engine, event_of(b"r" * 32, "rest", "s0", "e-rest"), now=datetime.now(UTC))
    engine.dispose()
    database.run(
        """INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, settled_at)
           SELECT 999, 'rest', chain_id, seq, 1, 'delivered', now(), now() FROM entry WHERE tenant = 'rest'"""
    )


def left_of(database, tenant: str) -> dict[str, int]:
    """How many rows each table with a column `tenant` has of it, but for what tells what was done in the cell."""
    tables = database.rows(
        """SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
           WHERE table_schema = 'public' AND column_name = 'tenant' AND table_type = 'BASE TABLE'
             AND table_name NOT IN ('operator_event', 'audit', 'erased_blob', 'verification', 'job')"""
    )
    counts = {name: database.rows(f"SELECT count(*) FROM {name} WHERE tenant = '{tenant}'")[0][0] for (name,) in tables}
    counts["leaf"] = database.rows("SELECT count(*) FROM leaf LEFT JOIN entry USING (chain_id, seq) WHERE entry IS NULL")[0][0]
    counts["attempt"] = database.rows("SELECT count(*) FROM attempt")[0][0]
    counts["source"] = database.rows("SELECT count(*) FROM source")[0][0]
    return {name: count for name, count in counts.items() if count}


class Died(BaseException):
    """In place of a kill: nothing of the mover runs after it, and its transactions are rolled back."""


STEPS = ("begin", "make_queue", "copy_ledger", "_checked", "freeze", "compare_frozen", "arrive", "leave")


def test_a_mover_that_dies_at_any_step_goes_on_and_loses_doubles_and_reorders_nothing(
    servers, database, other, there, channel, tmp_path, monkeypatch
) -> None:
    configured(database)
    emptied(channel)
    recorded(database, "before")
    sent = ["before"]
    with opened("acme", here(servers, database, tmp_path), there) as route:
        with running(database, servers.amqp_url, Blobs(str(tmp_path / "blobs"))):
            for step in STEPS:
                for dies in (dying_before, dying_after):
                    sent.append(f"{dies.__name__}-{step}")
                    publish(channel, sent[-1])
                    wait_for(lambda: depth(channel) == 0)
                    with monkeypatch.context() as patch, pytest.raises(Died):
                        patch.setattr(move_tenant, step, dies(getattr(move_tenant, step)))
                        move_tenant.move(route, "ann", lambda _line: None)
            wait_for(lambda: len(ids(database)) + waiting(servers.amqp_url, "acme") == len(sent))
        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(forward, "_publish", dying_after(forward._publish))  # in the broker, and not acknowledged
            move_tenant.move(route, "ann", lambda _line: None)
        move_tenant.move(route, "ann", lambda _line: None)
    with running(other, servers.amqp_url, Blobs(str(tmp_path / "there"))):
        wait_for(lambda: other.rows("SELECT count(*) FROM entry WHERE tenant = 'acme'") == [(len(sent),)])
        emptied_by_now(channel)
    sequenced(other)
    assert sent == ids(other)
    assert ids(database) == sent[: len(ids(database))]
    assert 1 < len(ids(database)) < len(sent)


def dying_before(step: Callable[..., object]) -> Callable[..., object]:
    def died(*_given: object, **_named: object) -> object:
        raise Died

    return died


def dying_after(step: Callable[..., object]) -> Callable[..., object]:
    def died(*given: object, **named: object) -> object:
        step(*given, **named)
        raise Died

    return died


def emptied_by_now(channel) -> None:
    """Returns when all that came to the inbox was taken, the duplicates too."""
    wait_for(lambda: depth(channel) == 0)


def configured(database) -> None:
    database.add_tenant()
    database.add_source("orders", "amqp")
    database.add_endpoint("first", "http://127.0.0.1:9/", "c2VjcmV0", rate_limit=1)
    database.add_endpoint("second", "http://127.0.0.1:9/", "c2VjcmV0", ordered=True)


def recorded_before(database, blobs: Blobs) -> None:
    """Twelve entries of three subjects, one of them with a body in the blob store; all but the last three have positions."""
    engine = make_engine(database.url)
    large = bytes(LARGEST_INLINE + 1)
    stored = replace(event_of(KEY, "acme", "s0", "large", large), blob=blobs.put("acme", large).reference)
    with transaction(engine) as conn:
        known = subscriptions(catalog.load(conn, database.vault.decrypt))
        events = [event_of(KEY, "acme", f"s{number % 3}", f"early-{number}") for number in range(8)]
        append(conn, [*events, stored], known, datetime.now(UTC))
    engine.dispose()
    sequenced(database)
    recorded(database, *(f"tail-{number}" for number in range(3)))


def found_by_doctor(database) -> list[Finding]:
    engine = make_engine(database.url)
    with transaction(engine) as conn:
        found = list(check_moves(conn))
    engine.dispose()
    return found


def worked_before(database) -> None:
    """A mailbox that is read half, a delivery that is dead after a try, dead letters, a token, a signed and anchored log."""
    secret = database.vault.encrypt(b"secret")
    database.run("UPDATE delivery SET state = 'dead', next_attempt_at = NULL, settled_at = now(), attempts = 1 WHERE id = 1")
    given = {"secret": secret, **sealed(database)}
    with database.connect() as conn:
        for statement in (
            "INSERT INTO source (tenant_id, name, kind) SELECT id, 'support', 'imap' FROM tenant",
            """INSERT INTO mailbox (id, settings, credentials, tokens)
               SELECT id, '{"host": "mail.example"}', %(secret)s, %(secret)s FROM source WHERE name = 'support'""",
            "INSERT INTO mailbox_cursor SELECT id, 'INBOX', 'new', '7', 3, 9, false, now(), now() FROM mailbox",
            "INSERT INTO mail_item SELECT id, '1-7', 'INBOX', '<1@b>', 9, now(), 'sha256:1', '{}', now() FROM mailbox",
            "INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status) VALUES (1, 1, now(), 1, 'dead', 410)",
            """INSERT INTO dead_letter (stage, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at)
               SELECT 'deliver', 'gone', '', 'acme', endpoint_id, 1, now(), now() FROM delivery WHERE id = 1""",
            """INSERT INTO dead_letter (stage, reason, detail, tenant, source, body, first_at, last_at)
               VALUES ('admit', 'malformed', '', 'acme', 'orders', 'x', now(), now())""",
            """INSERT INTO access_token (id, hash, who, role, tenant, created_at, created_by, expires_at)
               VALUES ('7Hq2LmPz', sha256('x'), 'ann', 'viewer', 'acme', now(), 'bob', now() + interval '1 day')""",
            "INSERT INTO log_key (log_id, public, private) SELECT id, %(public)s, %(private)s FROM log",
            "INSERT INTO checkpoint SELECT id, 9, %(root)s, %(note)s, now() FROM log",
            "INSERT INTO anchor (log_id, size, kind, place, at) SELECT id, 9, 'folder', '/anchors', now() FROM log",
            "INSERT INTO anchor (log_id, size, kind, place, at) SELECT id, 9, 'published', '/published', now() FROM log",
        ):
            conn.execute(statement, given)


def sealed(database) -> dict[str, object]:
    """The columns of a checkpoint of the log as it is, and of the key that signed it."""
    ((size, packed),) = database.rows("SELECT size, frontier FROM log")
    origin = log_origin("ledger.example", "acme", 1)
    signer, root = Signer(origin, PRIVATE), read_frontier(size, bytes(packed)).root()
    note = sign(Checkpoint(origin, size, root).text, [signer])
    return {"public": signer.key.public, "private": database.vault.encrypt(PRIVATE), "root": root, "note": note}


def assert_work_came(database, other) -> None:
    for query in (
        """SELECT mailbox.settings, mailbox_cursor.cursor, done, total, source_key, event_id FROM mailbox JOIN source USING (id)
           JOIN mailbox_cursor ON mailbox_cursor.mailbox_id = id JOIN mail_item ON mail_item.mailbox_id = id""",
        """SELECT name, attempt.n, status, delivery.chain_id, seq FROM dead_letter JOIN delivery ON delivery.id = delivery_id
           JOIN attempt ON attempt.delivery_id = delivery.id JOIN endpoint ON endpoint.id = delivery.endpoint_id""",
        "SELECT stage, reason, source, body FROM dead_letter ORDER BY stage",
        "SELECT id, hash, who, tenant FROM access_token",
        "SELECT size, note, signed_at FROM checkpoint",
        "SELECT place FROM anchor WHERE kind <> 'published'",
    ):
        came = other.rows(query)
        assert [] != came
        assert database.rows(query) == came
    assert [("active", None, False)] == other.rows("SELECT state, reason, next_pull_at IS NULL FROM mailbox")
    assert [(0,)] == other.rows("SELECT count(*) FROM anchor WHERE kind = 'published'")
    (secrets,) = other.rows("SELECT credentials, tokens, private FROM mailbox, log_key")
    assert [b"secret", b"secret", PRIVATE] == [other.vault.decrypt(each) for each in secrets]


def sequenced(database) -> None:
    engine = make_engine(database.url)
    with transaction(engine) as conn:
        sequence(conn, "acme")
    engine.dispose()


def recorded(database, *names: str) -> None:
    engine = make_engine(database.url)
    try:
        record(engine, *(event_of(KEY, "acme", "s0", name) for name in names), now=datetime.now(UTC))
    finally:
        engine.dispose()


def here(servers, database, tmp_path) -> Settings:
    return settings_of(
        {
            "database_url": database.url,
            "amqp_url": servers.amqp_url,
            "keys": database.key,
            "blobs": str(tmp_path / "blobs"),
            "log_origin": "ledger.example",
        }
    )


def ids(database) -> list[str]:
    """The ids of the tenant's events, in the order of its log."""
    rows = database.rows(
        "SELECT attributes FROM leaf JOIN entry USING (chain_id, seq) JOIN content USING (chain_id, seq)"
        " WHERE tenant = 'acme' AND kind = 'event' ORDER BY position"
    )
    return [json.loads(attributes)["id"] for (attributes,) in rows]


def assert_alike(database, other) -> None:
    """What came is byte by byte what was there, and what is still to be done is done in one cell."""
    for query in (
        "SELECT entry.* FROM leaf JOIN entry USING (chain_id, seq) WHERE position < 13 ORDER BY position",
        "SELECT content.* FROM leaf JOIN content USING (chain_id, seq) WHERE position < 13 ORDER BY position",
    ):
        assert database.rows(query) == other.rows(query)
    unsettled = """
        SELECT name, count(*) FROM delivery JOIN endpoint ON endpoint.id = endpoint_id WHERE delivery.state = %s
        GROUP BY 1 ORDER BY 1"""
    assert [("first", 8), ("second", 9)] == other.rows(unsettled, "pending")
    assert [] == database.rows(unsettled, "pending")
    secrets = "SELECT secrets[1] FROM endpoint ORDER BY name"
    for (was,), (now,) in zip(database.rows(secrets), other.rows(secrets), strict=True):
        assert database.vault.decrypt(was) == other.vault.decrypt(now)
