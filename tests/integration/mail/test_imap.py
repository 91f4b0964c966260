"""IMAP sessions on a real server: what is read, in which order, and that reading changes nothing."""

import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from schemas.mailbox import Cursor, Lane
from support.mail.dovecot import PASSWORD, change_validity, mail, mailbox_on, private_dovecot, with_oauth
from support.mail.mailboxes import Kept
from support.net.tls import Authority
from support.waiting import wait_for
from workers.mail.imap import imap_mailbox
from workers.mail.imap.connection import connect
from workers.mail.mailbox_session import Away, Gone, MailboxSession, NoFolder, PullBounds, Refused, Throttled

pytestmark = pytest.mark.usefixtures("loopback")


@pytest.fixture
def opened(server, user) -> Iterator[Callable[..., MailboxSession]]:
    sessions: list[MailboxSession] = []

    def open_(**more: object) -> MailboxSession:
        sessions.append(imap_mailbox.open_session(mailbox_on(server, user, **more), None))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def drain(session: MailboxSession, held: Kept, lane: Lane, cursor: Cursor, folder: str = "INBOX", **bounds: int) -> Cursor:
    while True:
        pulled = session.pull(folder, lane, cursor, PullBounds(**bounds), held)
        held.take(pulled)
        cursor = pulled.cursor
        if not pulled.more:
            return cursor


def test_what_is_there_is_read_newest_first_and_what_comes_oldest_first(server, user, opened) -> None:
    for number in range(25):
        server.deliver(user, mail(number))
    session, held = opened(), Kept()
    begun = session.begin("INBOX")
    assert begun.total == 25
    assert begun.backfill is not None
    pulled = session.pull("INBOX", "backfill", begun.backfill, PullBounds(mails=10), held)
    held.take(pulled)
    for number in range(25, 30):
        server.deliver(user, mail(number))

    cursor = drain(session, held, "new", begun.new)
    drain(session, held, "backfill", pulled.cursor, mails=10)

    assert [*range(24, 14, -1), *range(25, 30), *range(14, -1, -1)] == held.subjects()
    assert session.pull("INBOX", "new", cursor, PullBounds(), held).mails == []


def test_nothing_in_the_mailbox_is_changed(server, user, opened) -> None:
    for number in range(5):
        server.deliver(user, mail(number))
    opened().begin("INBOX")
    listed = {path.name.partition(":")[0] for path in server.files(user)}
    session, held = opened(), Kept()
    begun = session.begin("INBOX")
    drain(session, held, "backfill", begun.backfill)
    session.close()

    assert listed == {path.name.partition(":")[0] for path in server.files(user)}
    assert not [path.name for path in server.files(user) if path.name.partition(":2,")[2]]
    assert len(held.fetched) == 5


def test_every_byte_is_kept(server, user, opened) -> None:
    nasty = b"Subject: raw 1\r\n\r\n\xff bare \xc3\r\n.\r\n" + bytes(range(1, 10)) + b"\r\n"
    server.deliver(user, nasty)
    session, held = opened(), Kept()
    drain(session, held, "backfill", session.begin("INBOX").backfill)

    assert [nasty] == [each.raw for each in held.fetched]


def test_a_large_mail_is_fetched_in_pieces(server, user, opened) -> None:
    large = mail(1, 9 * 1024 * 1024)
    server.deliver(user, large)
    server.deliver(user, mail(2))
    session, held = opened(), Kept()
    drain(session, held, "backfill", session.begin("INBOX").backfill)

    assert [2, 1] == held.subjects()
    assert held.fetched[1].raw == large


def test_a_mail_of_exactly_so_many_pieces_is_whole(server, user, opened) -> None:
    head = b"Subject: n 1\r\n\r\n"
    large = head + b"x" * (3 * 1024 * 1024 - len(head) - 2) + b"\r\n"
    server.deliver(user, large)
    session, held = opened(), Kept()
    drain(session, held, "backfill", session.begin("INBOX").backfill)

    assert [large] == [each.raw for each in held.fetched]


def test_a_batch_is_bounded_in_bytes(server, user, opened) -> None:
    for number in range(6):
        server.deliver(user, mail(number, 1000))
    session, held = opened(), Kept()
    cursor = session.begin("INBOX").backfill
    pulled = session.pull("INBOX", "backfill", cursor, PullBounds(size=2500), held)

    assert len(pulled.mails) == 2
    assert pulled.more
    tiny = session.pull("INBOX", "backfill", pulled.cursor, PullBounds(size=1), held)
    assert len(tiny.mails) == 1


def test_only_what_is_young_enough_is_filled_back(server, user, opened) -> None:
    from datetime import UTC, datetime

    for number, day in enumerate((1, 10, 20)):
        server.deliver(user, mail(number), at=datetime(2026, 1, day, 12, tzinfo=UTC).timestamp())
    session, held = opened(sync_from=datetime(2026, 1, 10, 13, tzinfo=UTC)), Kept()
    begun = session.begin("INBOX")
    drain(session, held, "backfill", begun.backfill)

    assert [2] == held.subjects()


def test_a_changed_uidvalidity_recognises_what_is_held_and_fetches_the_rest(server, user, opened) -> None:
    for number in range(8):
        server.deliver(user, mail(number))
    server.deliver(user, mail(8).replace(b"Message-ID: <8@example.org>\r\n", b""))
    session, held = opened(), Kept()
    begun = session.begin("INBOX")
    drain(session, held, "backfill", begun.backfill)
    session.close()
    change_validity(server, user)
    server.deliver(user, mail(9))
    session = opened()
    with pytest.raises(Gone, match="UIDVALIDITY"):
        session.pull("INBOX", "new", begun.new, PullBounds(), held)
    held.fetched.clear()

    again = session.begin("INBOX")
    drain(session, held, "backfill", again.backfill)

    assert {8, 9} == set(held.subjects())
    assert len(held.mails) == 8 + 2 + 1  # the mail without a Message-ID under both keys; the ledger recognises it by its bytes


def test_an_expunged_tail_is_no_new_mail(server, user, opened) -> None:
    for number in range(5):
        server.deliver(user, mail(number))
    session, held = opened(), Kept()
    cursor = session.begin("INBOX").new
    for path in server.files(user)[3:]:
        path.unlink()

    pulled = session.pull("INBOX", "new", cursor, PullBounds(), held)

    assert ([], cursor, False) == (pulled.mails, pulled.cursor, pulled.more)
    server.deliver(user, mail(7))
    drain(session, held, "new", cursor)
    assert [7] == held.subjects()


def test_gaps_between_uids_are_passed(server, user, opened) -> None:
    for number in range(30):
        server.deliver(user, mail(number))
    opened().begin("INBOX")
    for path in server.files(user)[2:28]:
        path.unlink()
    session, held = opened(), Kept()
    begun = session.begin("INBOX")
    drain(session, held, "backfill", begun.backfill)

    assert [29, 28, 1, 0] == held.subjects()


@pytest.mark.parametrize("lane", ["new", "backfill"])
def test_a_mail_that_the_server_cannot_read_hides_no_other(server, user, opened, lane) -> None:
    server.make(user)
    session, held = opened(), Kept()
    begun = session.begin("INBOX")
    for number in range(12):
        server.deliver(user, mail(number))
    server.files(user)[5].chmod(0)  # Dovecot hangs up, as it does by default
    cursor = begun.new if lane == "new" else {"validity": begun.new["validity"], "below": 13}

    drain(session, held, lane, cursor)

    assert sorted(set(range(12)) - {5}) == sorted(held.subjects())


def test_folders_are_listed_and_read_by_their_names(server, user, opened) -> None:
    for folder in ("INBOX", "Grüße/Alt", "Sent"):
        server.make(user, folder if folder != "Grüße/Alt" else "Gr&APwA3w-e/Alt")
    server.deliver(user, mail(1), "Gr&APwA3w-e/Alt")
    session, held = opened(), Kept()

    assert {"INBOX", "Grüße/Alt", "Sent"} <= set(session.folders())
    drain(session, held, "backfill", session.begin("Grüße/Alt").backfill, folder="Grüße/Alt")
    assert [1] == held.subjects()
    with pytest.raises(NoFolder, match="nowhere"):
        session.begin("nowhere")
    assert session.begin("Sent").backfill is None


def test_a_wrong_password_is_refused_for_certain(server, user) -> None:
    with pytest.raises(Refused, match="AUTHENTICATIONFAILED") as raised:
        imap_mailbox.open_session(mailbox_on(server, user, password="wrong"), None)
    assert raised.value.certain


def test_a_token_logs_in_and_one_that_was_withdrawn_is_got_anew(server, user) -> None:
    if "xoauth2" not in (server.home / "dovecot.conf").read_text():
        pytest.skip("Dovecot asks another server about tokens since 2.4")
    asked = []

    def token(*, fresh: bool = False) -> str:
        asked.append(fresh)
        return PASSWORD if fresh else "withdrawn"

    imap_mailbox.open_session(with_oauth(server, user), token).close()

    assert [False, True] == asked
    with pytest.raises(Refused):
        imap_mailbox.open_session(with_oauth(server, user), lambda *, fresh=False: "never")


def test_tls_is_spoken_from_the_first_byte_and_checked(user) -> None:
    authority = Authority()
    certificate = authority.issue("localhost")
    with private_dovecot(certificate=certificate) as server:
        server.deliver(user, mail(1))
        secure = mailbox_on(server, user, host="localhost", port=server.tls_port, tls=True, ca=authority.ca)
        session, held = imap_mailbox.open_session(secure, None), Kept()
        drain(session, held, "backfill", session.begin("INBOX").backfill)
        session.close()
        assert [1] == held.subjects()
        with pytest.raises(Away, match=r"(?i)certificate"):
            imap_mailbox.open_session(mailbox_on(server, user, host="localhost", port=server.tls_port, tls=True), None)


def test_a_server_that_is_full_is_left_alone_for_a_while(user) -> None:
    with private_dovecot(connections=1) as server:
        first = imap_mailbox.open_session(mailbox_on(server, user), None)
        with pytest.raises(Throttled) as raised:
            imap_mailbox.open_session(mailbox_on(server, user), None)
        first.close()
    assert raised.value.seconds == 60


def test_a_server_that_hangs_costs_no_more_than_the_deadline(server, user, opened, lateness) -> None:
    server.deliver(user, mail(1))
    session, held = opened(), Kept()
    cursor = session.begin("INBOX").new
    stopped = server.processes()
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(Away, match="time"):
            session.pull("INBOX", "new", cursor, PullBounds(until=time.monotonic() + 0.5), held)
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    assert time.monotonic() - began < 3 + lateness()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(server, user, monkeypatch, lateness) -> None:
    real = socket.getaddrinfo("127.0.0.1", server.port, type=socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # a full accept queue does not answer, like an unused address
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        silent = [(*real[0][:4], full.getsockname())] * 2
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*silent, *real])
        began = time.monotonic()
        connect(mailbox_on(server, user), None, began + 4.5).close()
        for each in waiting:
            each.close()

    assert time.monotonic() - began < 5.5 + lateness()


def test_nobody_listens(user) -> None:
    from schemas.mailbox import Mailbox

    with pytest.raises(Away, match="connecting"):
        imap_mailbox.open_session(
            Mailbox(1, "acme", "x", "imap", user, host="127.0.0.1", port=9, tls=False, password="x"), None
        )


def test_idle_tells_of_what_arrives_and_only_of_that(server, user) -> None:
    server.deliver(user, mail(1))
    connection = connect(mailbox_on(server, user), None, time.monotonic() + 30)
    assert connection.can_idle()
    connection.examine("INBOX")
    connection.idle()
    assert not connection.end_idle()
    connection.idle()
    server.deliver(user, mail(2))
    wait_for(connection.pending)

    assert connection.end_idle()
    connection.close()
