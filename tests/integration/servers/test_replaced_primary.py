"""A PostgreSQL primary and its synchronous standby: what is committed, and that only the newest primary is written to."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from ops.admin.doctor.host_checks import check_hosts
from ops.admin.doctor.postgres_checks import check_postgres
from ops.migrate import migrate
from ops.runtime.db import make_engine, passes, persist, transaction
from ops.runtime.driver import db_deadline, db_timelines
from ops.runtime.driver.db_deadline import NotReplicated
from ops.server_urls import database_url
from ops.settings import Settings
from ops.telemetry import pulse
from pipeline.store.log import checkpoints
from support.ledger.events import NOW, event_of, record
from support.outages.pair import ADDRESSES, Pair
from support.waiting import wait_for
from workers.relay.worker import DueNotifications
from workers.sealer.lead import Deposed, Lead

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
EVENT = event_of(b"k" * 32, "acme", "order-1", "1")


@pytest.fixture(scope="module")
def pair(module_folder: Path) -> Iterator[Pair]:
    two = Pair(module_folder / "pair")
    try:
        two.start()
        migrate(database_url(two.url()))
        yield two
    finally:
        two.stop()


@pytest.fixture
def engine(pair: Pair) -> Iterator[Engine]:
    with engine_on(pair.url()) as engine:
        yield engine


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    engine = make_engine(database_url(url), pool_size=4)
    yield engine
    engine.dispose()


def named(conn: Connection) -> str:
    return str(conn.exec_driver_sql("SELECT current_setting('cluster_name')").scalar_one())


def server(engine: Engine) -> str:
    with transaction(engine) as conn:
        return named(conn)


def failure(work: Callable[[], object]) -> Exception:
    with pytest.raises((psycopg.Error, DBAPIError)) as failed:
        work()
    assert passes(failed.value)
    return failed.value


def test_doctor_finds_each_host_and_what_its_standby_is_worth(pair: Pair, engine: Engine) -> None:
    (hosts,) = check_hosts(database_url(pair.url()))
    with engine.connect() as conn:
        before = [each for each in check_postgres(conn, Settings()) if each.check == "synchronous standbys"]
    pair.protect("ANY 2 (b, c)")
    with engine.connect() as conn:
        after = [each for each in check_postgres(conn, Settings()) if each.check == "synchronous standbys"]
    pair.protect()

    assert ("ok", True) == (hosts.state, hosts.found.endswith(": standby"))
    assert "primary, timeline 1" in hosts.found
    assert ["ok"] == [each.state for each in before]
    assert [("wrong", True)] == [(each.state, "2 of them must have a commit, and 1 are" in each.found) for each in after]
    (unsure, _) = check_hosts(database_url(pair.url().partition("?")[0]))
    assert "target_session_attrs=read-write" in unsure.mend


def test_what_only_the_primary_has_is_neither_committed_nor_a_duplicate(pair: Pair, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as aside, psycopg.connect(pair.url_of(0), autocommit=True) as seen:
        pair.freeze(1)
        recording = aside.submit(record, engine, EVENT)
        wait_for(lambda: seen.execute(WAITING).fetchall())
        seen.execute(f"SELECT pg_cancel_backend(pid) FROM ({WAITING}) AS waiting")
        error = failure(recording.result)
        assert isinstance(error, OperationalError)
        assert isinstance(error.orig, NotReplicated)
        assert seen.execute("SELECT count(*) FROM entry").fetchone() == (1,)

        again = aside.submit(record, engine, EVENT)  # a duplicate, whose message would be acked
        wait_for(lambda: seen.execute(WAITING).fetchall())
        assert not again.done()
        pair.thaw(1)
        again.result(30)
    with psycopg.connect(pair.url_of(1)) as standby:
        assert standby.execute("SELECT count(*) FROM entry").fetchone() == (1,)


def test_a_checkpoint_that_was_kept_before_is_published_only_when_the_standby_has_it(pair: Pair, engine: Engine) -> None:
    def keep() -> None:
        with transaction(engine) as conn:
            checkpoints.keep(conn, log, 0, b"r" * 32, "note", NOW)

    with ThreadPoolExecutor(1) as aside, psycopg.connect(pair.url_of(0), autocommit=True) as seen:
        (log,) = seen.execute("INSERT INTO log (tenant) VALUES ('other') RETURNING id").fetchone() or (0,)
        keep()
        pair.freeze(1)
        again = aside.submit(keep)
        wait_for(lambda: seen.execute(WAITING).fetchall())
        assert not again.done()
        pair.thaw(1)
        again.result(30)


def test_a_server_that_does_not_tell_its_timeline_is_used(pair: Pair) -> None:
    with psycopg.connect(pair.url_of(0), autocommit=True) as owner:
        owner.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        owner.execute("REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
        with engine_on(pair.url("plain", "plain")) as engine:
            assert server(engine) == "a"
        owner.execute("GRANT EXECUTE ON FUNCTION pg_control_system TO PUBLIC")


def test_a_connection_that_takes_no_writes_is_replaced(pair: Pair) -> None:
    with engine_on(pair.url_of(1)) as engine:
        kept = engine.connect()
        driver = kept.connection.driver_connection
        failure(lambda: kept.exec_driver_sql("CREATE TABLE refused ()"))
        assert driver is not None
        assert driver.closed
        kept.close()


def test_all_go_over_to_a_promoted_standby_and_nobody_returns_to_the_old_primary(
    pair: Pair, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_deadline, "ANSWER", 1.0)
    monkeypatch.setattr("workers.relay.worker.QUIET", 0.2)
    due, lead = DueNotifications(engine), Lead(engine)
    due.wait(0.0)
    assert lead.take()
    fence = lead.fence()
    with engine.connect() as waiting, ThreadPoolExecutor(2) as aside:
        assert named(waiting) == "a"
        listening = aside.submit(due.wait, 300.0)
        monkeypatch.setattr(db_deadline, "SILENCE", 300.0)
        pair.freeze(0)
        pair.promote()
        asked = aside.submit(waiting.exec_driver_sql, "SELECT 1")
        driver = waiting.connection.driver_connection
        assert driver is not None
        wait_for(lambda: driver.pgconn.transaction_status == TransactionStatus.ACTIVE)
        monkeypatch.setattr(db_deadline, "SILENCE", 0.3)  # of the next
        assert persist(engine, 30.0, named) == "b"
        failure(lambda: asked.result(30))
        failure(lambda: listening.result(30))  # without a word from the server that it listens to
    with pytest.raises(Deposed):
        fence()
    lead.release()
    assert ("127.0.2.1", str(pair.port)) in db_deadline._avoided  # and is tried last
    pair.thaw(0)

    assert {server(engine) for _ in range(3)} == {"b"}
    assert due.wait(5.0)  # it listens to the new one, and looks at everything
    assert lead.take()
    db_timelines._newest.clear()  # as in a process that has just been started, to which both are primaries
    with engine_on(pair.url()) as new:
        assert server(new) == "b"
    lead.release()
    due.close()
    (told,) = check_hosts(database_url(pair.url()))
    assert ("wrong", True) == (told.state, told.found.startswith("several take writes"))


def test_a_process_that_noticed_nothing_learns_of_the_promotion_from_the_other_host(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are primaries here: the old one of the test before came back."""
    url = database_url(pair.url())
    db_timelines._newest.clear()
    db_deadline._avoided.clear()
    monkeypatch.setattr(pulse, "EVERY", 0.05)
    with engine_on(pair.url()) as engine:
        with monkeypatch.context() as before:
            before.setattr(db_timelines, "is_known", lambda _seen: True)  # as when there was no other primary yet
            assert server(engine) == "a"
            check = pulse.of_postgres(Settings(database_url=url))
            wait_for(lambda: check.fault() is None)
        try:
            wait_for(lambda: persist(engine, 10.0, named) == "b")
        finally:
            check.close()


def test_a_host_that_did_not_answer_is_tried_after_one_that_did_not_answer_before_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = (ADDRESSES[pair.primary], str(pair.port))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = ("127.0.0.1", str(mute.getsockname()[1]))
        options = conninfo_to_dict(pair.url()) | db_timelines.to_hosts([silent, primary])
        now = time.monotonic()
        monkeypatch.setattr(db_deadline, "_avoided", {silent: now + 60.0, primary: now + 30.0})
        db_deadline.connect(db_deadline.Connection, [], options, 5.0).close()
        mute.setblocking(False)
        with pytest.raises(BlockingIOError):
            mute.accept()


def test_hosts_that_a_login_waited_for_in_vain_are_tried_last_from_then_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    primary = (ADDRESSES[pair.primary], str(pair.port))
    monkeypatch.setattr(db_deadline, "_avoided", {})
    with socket.create_server(("127.0.0.1", 0)) as one:
        gone = ("127.0.0.1", str(one.getsockname()[1]))
    options = conninfo_to_dict(pair.url()) | db_timelines.to_hosts([gone, primary])
    db_deadline.connect(db_deadline.Connection, [], options, 5.0).close()
    assert {} == db_deadline._avoided  # it refused at once
    monkeypatch.setattr(db_deadline, "_SLOW", 0.0)
    db_deadline.connect(db_deadline.Connection, [], options, 5.0).close()
    assert {gone} == set(db_deadline._avoided)
