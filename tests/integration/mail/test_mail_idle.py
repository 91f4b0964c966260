"""Listening to mailboxes: when a mailbox is made due, and what happens when its server fails."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from ops.config.apply import apply_file
from ops.settings import Settings
from support.mail.dovecot import PASSWORD, mail
from workers.mail.idle import worker
from workers.mail.idle.worker import Idler
from workers.mail.mailbox_session import Throttled

pytestmark = pytest.mark.usefixtures("loopback")


@pytest.fixture
def user(user, server) -> str:
    server.deliver(user, mail(0))
    return user


@pytest.fixture
def idler(database, engine: Engine, server, user, tmp_path, monkeypatch, request) -> Iterator[Idler]:
    monkeypatch.setattr(worker, "SURVEY", 0.05)
    folders = getattr(request, "param", "[INBOX]")
    (tmp_path / "waxseal.yaml").write_text(f"""\
tenants: [{{name: acme}}]
mailboxes:
  - tenant: acme
    name: support
    kind: imap
    host: 127.0.0.1
    port: {server.port}
    tls: false
    username: {user}
    password: {PASSWORD}
    folders: {folders}
""")
    apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))
    later(database)
    made = Idler(engine, database.vault, lambda _mailbox: None)
    yield made
    made.close()


def later(database) -> None:
    with database.connect() as conn:
        conn.execute(
            "UPDATE mailbox SET began_at = now(), pulled_at = now(), next_pull_at = now() + interval '1 h', rung_at = NULL"
        )


def made_due(database) -> bool:
    return database.rows("SELECT next_pull_at <= now() AND rung_at IS NOT NULL FROM mailbox")[0][0]


def until(idler: Idler, happened: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        idler.turn(0.05)
    return True


def listening(idler: Idler) -> int:
    return len(idler._selector.get_map())


def test_a_mail_makes_its_mailbox_due_and_only_once(idler, database, server, user) -> None:
    assert until(idler, lambda: listening(idler) == 1)
    assert until(idler, lambda: made_due(database))  # mails that arrived before the listener connected
    for number in range(1, 4):
        later(database)
        server.deliver(user, mail(number))
        assert until(idler, lambda: made_due(database))
    later(database)
    for _ in range(10):
        idler.turn(0.05)
    assert not made_due(database)


def test_an_idle_is_asked_for_anew_before_the_server_hangs_up(idler, database, server, user, monkeypatch) -> None:
    monkeypatch.setattr(worker, "RENEW", 0.2)
    assert until(idler, lambda: listening(idler) == 1)
    (listener,) = idler._listeners.values()
    first = listener.renew_at
    assert until(idler, lambda: listener.renew_at > first + 0.5)
    assert listener.failures == 0
    assert until(idler, lambda: made_due(database))
    later(database)
    server.deliver(user, mail(1))
    assert until(idler, lambda: made_due(database))


def test_a_connection_that_is_lost_is_made_again(idler, database, server, user, monkeypatch) -> None:
    monkeypatch.setattr(worker, "AGAIN", (0.1, 0.2))
    assert until(idler, lambda: listening(idler) == 1)
    for process in server.processes():
        process.send_signal(signal.SIGKILL)
    assert until(idler, lambda: listening(idler) == 0)
    assert until(idler, lambda: listening(idler) == 1)
    later(database)
    server.deliver(user, mail(1))
    assert until(idler, lambda: made_due(database))


def test_a_mailbox_that_is_paused_or_fails_is_not_listened_to(idler, database, server) -> None:
    assert until(idler, lambda: listening(idler) == 1)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET state = 'paused', reason = 'x'")
    assert until(idler, lambda: listening(idler) == 0)
    assert {} == idler._listeners
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET state = 'active', reason = NULL")
    assert until(idler, lambda: listening(idler) == 1)


def test_a_listener_that_cannot_log_in_waits_longer_each_time(idler, database, monkeypatch) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET settings = settings || '{\"port\": 9}'")
    assert until(idler, lambda: bool(idler._listeners) and next(iter(idler._listeners.values())).failures == 1)
    (listener,) = idler._listeners.values()
    assert 10 < listener.renew_at - time.monotonic() < 34
    assert not made_due(database)


def test_a_server_that_hangs_is_no_harm_to_others(idler, database, server, user, monkeypatch) -> None:
    assert until(idler, lambda: listening(idler) == 1)
    monkeypatch.setattr(worker, "ANSWER", 0.3)
    stopped = server.processes()
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        (listener,) = idler._listeners.values()
        listener.renew_at = 0.0
        assert until(idler, lambda: listener.failures == 1)
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    assert listener.connection is None


FIVE = "[Nowhere, INBOX, A, Deep/B, C, D]"


@pytest.mark.parametrize("idler", [FIVE], indirect=True)
def test_the_first_folders_that_there_are_are_listened_to(idler, database, server, user) -> None:
    for folder in ("A", "Deep/B", "C", "D"):
        server.make(user, folder)

    assert until(idler, lambda: listening(idler) == 4)
    assert {"INBOX", "A", "Deep/B", "C"} == {each.folder for each in idler._listeners.values() if each.connection}
    for number, folder in enumerate(("INBOX", "Deep/B", "C", "INBOX")):
        assert until(idler, lambda: made_due(database)) or not number
        later(database)
        server.deliver(user, mail(number), folder)
        assert until(idler, lambda: made_due(database))


@pytest.mark.parametrize("idler", [FIVE], indirect=True)
def test_a_folder_that_is_known_to_be_missing_is_not_asked_for(idler, database, server, user) -> None:
    with database.connect() as conn:
        conn.execute("INSERT INTO mailbox_folder_error SELECT id, 'Nowhere', 'not there', now() FROM mailbox")
    server.make(user, "A")
    assert until(idler, lambda: listening(idler) == 2)
    assert "Nowhere" not in {each.folder for each in idler._listeners.values()}

    server.make(user, "Nowhere")
    with database.connect() as conn:
        conn.execute("DELETE FROM mailbox_folder_error")
    assert until(idler, lambda: listening(idler) == 3)


@pytest.mark.parametrize("idler", ["['*']"], indirect=True)
def test_of_all_folders_the_inbox_comes_first(idler, database, server, user) -> None:
    for folder in ("INBOX", "E", "D", "C", "B", "A"):
        server.make(user, folder)
        with database.connect() as conn:
            sql = "INSERT INTO mailbox_cursor SELECT id, %s, 'new', '{}', 0, NULL, false, now(), now() FROM mailbox"
            conn.execute(sql, (folder,))

    assert until(idler, lambda: listening(idler) == 4)
    assert {"INBOX", "A", "B", "C"} == {each.folder for each in idler._listeners.values()}


@pytest.mark.parametrize("idler", ["[INBOX, A, B, C]"], indirect=True)
def test_a_server_that_grants_fewer_connections_has_one_left_for_pulling(idler, database, server, user, monkeypatch) -> None:
    for folder in ("A", "B", "C"):
        server.make(user, folder)
    real = worker.connect

    def granting_three(*terms: object) -> object:
        if sum(each.connection is not None for each in idler._listeners.values()) >= 3:
            raise Throttled("Maximum number of connections exceeded", 60.0)
        return real(*terms)

    monkeypatch.setattr(worker, "connect", granting_three)
    idler._pool.shutdown()
    idler._pool = ThreadPoolExecutor(1)
    assert until(idler, lambda: listening(idler) == 3)
    assert until(idler, lambda: listening(idler) == 2)
    for _ in range(10):
        idler.turn(0.05)
    assert ["INBOX", "A"] == [each.folder for each in idler._listeners.values() if each.connection]


@pytest.mark.parametrize("idler", ["[INBOX, A, B, C]"], indirect=True)
def test_a_mailbox_that_fails_while_it_has_many_connections_is_given_fewer(idler, database, server, user) -> None:
    for folder in ("A", "B", "C"):
        server.make(user, folder)
    assert until(idler, lambda: listening(idler) == 4)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET failures = 1, failing_since = now(), error = 'too many connections'")
    assert until(idler, lambda: listening(idler) == 0)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET failures = 0, failing_since = NULL, error = NULL")
    assert until(idler, lambda: listening(idler) == 2)
    assert not until(idler, lambda: listening(idler) > 2, 0.5)
