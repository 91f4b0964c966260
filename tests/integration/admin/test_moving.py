import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops.admin.doctor.finding import Finding
from ops.admin.doctor.move_checks import check_moves
from ops.admin.moving.cells import opened
from ops.admin.moving.copying import copy_ledger
from ops.admin.moving.freezing import freeze
from ops.admin.moving.move_plan import begin
from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings, settings_of
from pipeline.append import append
from pipeline.fanout import subscriptions
from pipeline.ledger.sequence import sequence
from pipeline.store.config import catalog
from schemas.blob import LARGEST_INLINE
from support.ingest import running
from support.ledger.events import event_of, record
from support.queues import depth, emptied, publish
from support.waiting import wait_for
from workers.commands import forward, move_tenant
from workers.commands.forward import make_queue, waiting

KEY = b"k" * 32


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
    assert [("first", 9), ("second", 9)] == other.rows(unsettled, "pending")
    assert [] == database.rows(unsettled, "pending")
    secrets = "SELECT secrets[1] FROM endpoint ORDER BY name"
    for (was,), (now,) in zip(database.rows(secrets), other.rows(secrets), strict=True):
        assert database.vault.decrypt(was) == other.vault.decrypt(now)
