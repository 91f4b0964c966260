"""Mailboxes pulled into the inbox: batches, cursors, leases, and mailboxes that fail."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ops.admin import mailboxes as ops_mailboxes
from ops.config.apply import apply_file
from ops.runtime.db import transaction
from ops.settings import Settings
from ops.telemetry.tracing import switch as tracing
from pipeline.mail.settle_pull import DOUBTS, Outcome
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailboxes
from schemas.mailbox import Mailbox, MailItem, RawMail
from support.mail.dovecot import PASSWORD, change_validity, mail
from support.mail.mailboxes import drain
from support.telemetry.otlp import collector
from support.waiting import wait_for
from workers.mail.imap import imap_mailbox
from workers.mail.mailbox_session import Away, MailboxSession, PullBounds, Refused, Throttled
from workers.mail.pull import puller as pull_puller
from workers.mail.pull.batch import LEASE
from workers.mail.pull.publish import described
from workers.mail.pull.puller import Puller
from workers.mail.pull.sessions import Sessions, open_session

pytestmark = pytest.mark.usefixtures("loopback")

FILE = """\
tenants: [{{name: acme}}]
mailboxes:
  - tenant: acme
    name: support
    kind: imap
    host: {host}
    port: {port}
    tls: false
    username: {user}
    password: {password}
    {more}
"""


@pytest.fixture
def apply(database, server, user, tmp_path: Path) -> Callable[..., int]:
    def run(more: str = "", password: str = PASSWORD, login: str = user, host: str = "127.0.0.1") -> int:
        text = FILE.format(host=host, port=server.port, user=login, password=password, more=more)
        (tmp_path / "waxseal.yaml").write_text(text)
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))
        return int(database.rows("SELECT id FROM mailbox")[0][0])

    return run


@pytest.fixture
def puller(database, engine: Engine, inbox) -> Iterator[Callable[..., Puller]]:
    sessions = []

    def make(owner: str = "me", open_=open_session) -> Puller:
        sessions.append(Sessions(lambda _mailbox: None, open_))
        return Puller(engine, database.vault, sessions[-1], inbox, owner)

    yield make
    for each in sessions:
        each.sweep(everything=True)


def test_a_mailbox_is_read_whole_and_then_what_arrives(apply, puller, server, user, inbox, database) -> None:
    for number in range(450):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()

    assert ["more", "more", "done"] == drain(pull, id_)
    assert list(range(449, -1, -1)) == inbox.numbers()
    assert all(each.backfill for each in inbox.mails)
    assert [(450, 450, True)] == database.rows(
        "SELECT done, total, finished_at IS NOT NULL FROM mailbox_cursor WHERE lane = 'backfill'"
    )
    for number in range(450, 453):
        server.deliver(user, mail(number))
    assert ["done"] == drain(pull, id_)
    assert [450, 451, 452] == inbox.numbers()[450:]
    assert not any(each.backfill for each in inbox.mails[450:])
    assert [(453,)] == database.rows("SELECT count(*) FROM mail_item")


def test_a_pull_is_recorded_with_its_outcome_while_traces_are(apply, puller, server, user, inbox, monkeypatch) -> None:
    server.deliver(user, mail(1))
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        tracing.start("mail-pull")
        try:
            assert ["done"] == drain(puller(), apply())
        finally:
            tracing.stop()

    (span,) = found.spans
    assert ("waxseal-mail-pull", "pull imap", "client", "") == (span.service, span.name, span.kind, span.parent_id)
    about = {"waxseal.tenant": "acme", "waxseal.mailbox": "support", "waxseal.outcome": "done"}
    assert about == span.attributes


def test_what_arrives_does_not_wait_for_what_was_there(apply, puller, server, user, inbox) -> None:
    for number in range(450):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()
    assert pull.pull(id_) == "more"
    server.deliver(user, mail(1000))
    pull.pull(id_, going_on=True)

    assert 1000 in inbox.numbers()[:401]


def test_dying_between_the_broker_and_the_cursor_loses_nothing(apply, puller, server, user, inbox, engine, monkeypatch) -> None:
    for number in range(30):
        server.deliver(user, mail(number))
    id_ = apply()
    put = mail_items.add

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt  # no code of the puller catches it, as with SIGKILL

    monkeypatch.setattr(mail_items, "add", die)
    with pytest.raises(KeyboardInterrupt):
        puller().pull(id_)
    monkeypatch.setattr(mail_items, "add", put)
    assert len(inbox.mails) == 30
    with transaction(engine) as conn:
        assert mail_leases.due(conn, datetime.now(UTC), datetime.now(UTC), 10) == []
        assert mail_leases.due(conn, datetime.now(UTC) + LEASE, datetime.now(UTC), 10)
        conn.exec_driver_sql("UPDATE mailbox SET lease_until = now()")

    assert ["done"] == drain(puller("another"), id_)
    assert {30} == {len(set(inbox.numbers()))}
    assert len({described(Mailbox(1, "a", "b", "imap", "u"), each)[0].event_id for each in inbox.mails}) == 30


def test_two_at_once_pull_each_mail_once(apply, puller, server, user, inbox, monkeypatch) -> None:
    for number in range(250):
        server.deliver(user, mail(number))
    id_ = apply()
    outcomes: list[Outcome] = []
    accept = inbox.accept

    def when_the_other_has_tried(mailbox: Mailbox, mails: Sequence[RawMail]) -> list[MailItem]:
        wait_for(lambda: "busy" in outcomes)
        return accept(mailbox, mails)

    def work(pull: Puller) -> None:
        while "done" not in outcomes:
            outcomes.append(pull.pull(id_))

    monkeypatch.setattr(inbox, "accept", when_the_other_has_tried)

    threads = [threading.Thread(target=work, args=(puller(f"p{n}"),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(range(250)) == sorted(inbox.numbers())


def test_a_puller_that_lost_the_lease_writes_nothing(apply, puller, server, user, inbox, engine, database) -> None:
    server.deliver(user, mail(1))
    id_ = apply()

    def slowly(mailbox, token) -> MailboxSession:
        session = imap_mailbox.open_session(mailbox, token)
        with transaction(engine) as conn:  # the lease ended, and another process took over
            conn.exec_driver_sql("UPDATE mailbox SET lease_epoch = lease_epoch + 1, lease_owner = 'another'")
        return session

    assert puller(open_=slowly).pull(id_) == "fenced"
    assert [] == database.rows("SELECT * FROM mail_item") == database.rows("SELECT * FROM mailbox_cursor")
    assert [("another",)] == database.rows("SELECT lease_owner FROM mailbox")


def test_a_changed_uidvalidity_publishes_nothing_twice(apply, puller, server, user, inbox, database) -> None:
    for number in range(300):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()
    drain(pull, id_)
    change_validity(server, user)
    server.deliver(user, mail(300))

    while pull.pull(id_) == "more":
        pass
    assert [*range(299, -1, -1), 300] == inbox.numbers()
    assert not inbox.mails[-1].backfill  # it arrived after the first pull
    assert [(301,)] == database.rows("SELECT count(*) FROM mail_item")
    server.deliver(user, mail(301))
    drain(pull, id_)
    assert inbox.numbers()[-1] == 301


def test_a_mail_that_the_server_left_out_is_found_when_all_is_compared(apply, puller, server, user, inbox, database) -> None:
    for number in range(5):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()
    drain(pull, id_)
    server.deliver(user, mail(5))
    drain(pull, id_)
    with database.connect() as conn:  # as if the server had left it out of the list
        conn.execute("DELETE FROM mail_item WHERE split_part(source_key, '/', 3) = '6'")
    inbox.clear()
    drain(pull, id_)
    assert [] == inbox.numbers()

    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET reconciled_at = now() - interval '25 hours'")
    drain(pull, id_)

    assert [5] == inbox.numbers()
    assert not inbox.mails[0].backfill


def test_mails_with_one_message_id_are_both_kept_and_flagged(apply, puller, server, user, inbox, database) -> None:
    server.deliver(user, mail(1, message_id="same@x"))
    server.deliver(user, mail(2))
    id_, pull = apply(), puller()
    drain(pull, id_)
    server.deliver(user, mail(3, message_id="Same@X"))
    server.deliver(user, mail(1, message_id="same@x"))
    drain(pull, id_)

    assert [2, 1, 3, 1] == inbox.numbers()
    flagged = "SELECT count(*) FROM mail_item WHERE 'message_id_conflict' = ANY(flags)"
    assert [(2,)] == database.rows(flagged)  # the different mail, and the copy of the first after it


def test_folders_are_read_each_and_one_that_is_gone_is_in_nobodys_way(apply, puller, server, user, inbox, database) -> None:
    for folder in ("INBOX", "Archive"):
        for number in range(3):
            server.deliver(user, mail(number + (100 if folder == "Archive" else 0)), folder)
    id_, pull = apply("folders: [Nowhere, INBOX, Archive]"), puller()

    for _ in range(3):
        assert drain(pull, id_)[-1] == "done"
    assert {0, 1, 2, 100, 101, 102} == set(inbox.numbers())
    assert [(0, None, True)] == database.rows("SELECT failures, error, next_pull_at > now() + interval '4 min' FROM mailbox")
    ((folder, error),) = database.rows("SELECT folder, error FROM mailbox_folder_error")
    assert folder == "Nowhere"
    assert "Nowhere" in error
    assert [("mailbox_folder_unreadable",)] == events(database)
    server.deliver(user, mail(7), "Nowhere")
    assert drain(pull, id_)[-1] == "done"
    assert 7 in inbox.numbers()
    assert [] == database.rows("SELECT FROM mailbox_folder_error")
    assert [("mailbox_folder_unreadable",), ("mailbox_folder_readable",)] == events(database)

    id_ = apply("folders: ['*']")
    server.deliver(user, mail(103), "Archive")
    assert drain(pull, id_)[-1] == "done"
    assert 103 in inbox.numbers()
    assert [(0, None)] == database.rows("SELECT failures, error FROM mailbox")


def events(database) -> list[tuple]:
    return database.rows("SELECT kind FROM operator_event ORDER BY id")


def test_a_mailbox_of_which_no_folder_can_be_read_fails(apply, puller, server, user, database) -> None:
    server.make(user)
    id_, pull = apply("folders: [Nowhere, Nothing]"), puller()

    assert drain(pull, id_)[-1] == "away"
    assert [(1, True)] == database.rows("SELECT failures, error ~ 'Nowhere|Nothing' FROM mailbox")
    assert [] == database.rows("SELECT FROM mailbox_folder_error")
    assert [] == events(database)


def test_a_folder_that_is_not_configured_any_more_or_was_deleted_is_forgotten(apply, puller, server, user, database) -> None:
    server.make(user)
    server.make(user, "Old")
    id_, pull = apply("folders: [INBOX, Nowhere]"), puller()
    drain(pull, id_)
    assert [("Nowhere",)] == database.rows("SELECT folder FROM mailbox_folder_error")
    apply("folders: [INBOX, Old]")
    assert [] == database.rows("SELECT folder FROM mailbox_folder_error")
    with database.connect() as conn:  # an unreadable folder found under "*" that was deleted since
        conn.execute("INSERT INTO mailbox_folder_error SELECT id, 'Gone', 'x', now() FROM mailbox")
    apply("folders: ['*']")
    assert drain(pull, id_)[-1] == "done"
    assert [] == database.rows("SELECT folder FROM mailbox_folder_error")
    assert [("mailbox_folder_unreadable",)] == events(database)


def test_a_folder_that_cannot_be_read_is_in_no_reconciliations_way(apply, puller, server, user, database) -> None:
    server.deliver(user, mail(1))
    server.deliver(user, mail(2), "Moved")
    id_, pull = apply("folders: [INBOX, Moved]"), puller()
    drain(pull, id_)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox_cursor SET finished_at = NULL WHERE folder = 'Moved' AND lane = 'backfill'")
        conn.execute("UPDATE mailbox SET began_at = now() - interval '2 days', reconciled_at = now() - interval '2 days'")
    server.maildir(user, "Moved").rename(server.maildir(user, "Elsewhere"))

    pull.pull(id_)
    drain(pull, id_)

    assert [(True,)] == database.rows("SELECT reconciled_at > now() - interval '1 hour' FROM mailbox")


def test_refused_credentials_set_the_mailbox_aside_until_they_change(apply, puller, server, user, inbox, database) -> None:
    server.deliver(user, mail(1))
    id_, pull = apply(password="wrong"), puller()

    assert ["refused", "busy"] == [pull.pull(id_), pull.pull(id_)]
    (row,) = database.rows("SELECT state, reason, failures FROM mailbox")
    assert ("needs_reauthorization", 1) == (row[0], row[2])
    assert "AUTHENTICATIONFAILED" in row[1]
    assert [("mailbox_needs_reauthorization", id_)] == database.rows("SELECT kind, source_id FROM operator_event")
    apply()
    assert ["done"] == drain(pull, id_)
    assert [1] == inbox.numbers()


def fails_with(error: Exception) -> Callable[..., MailboxSession]:
    def open_(_mailbox: object, _token: object) -> MailboxSession:
        raise error

    return open_


def test_a_refusal_without_a_reason_is_doubted(apply, puller, database) -> None:
    id_, pull = apply(), puller(open_=fails_with(Refused("LOGIN failed.", certain=False)))
    outcomes = [pull.pull(id_) for _ in range(DOUBTS)]

    assert ["away"] * (DOUBTS - 1) + ["refused"] == outcomes
    assert [("needs_reauthorization",)] == database.rows("SELECT state FROM mailbox")


@pytest.mark.parametrize(("error", "low", "high"), [(Away("hm"), 30, 34), (Throttled("slow", 77), 77, 85)])
def test_a_failing_mailbox_waits_in_the_slow_lane(apply, puller, database, engine, error, low, high) -> None:
    id_, pull = apply(), puller(open_=fails_with(error))
    pull.pull(id_)

    waits = "extract(epoch FROM next_pull_at - failing_since)"
    (row,) = database.rows(f"SELECT slow, failures, error, state, {waits} FROM mailbox")
    assert (True, 1, str(error), "active") == row[:4]
    assert low - 1 <= row[4] <= high
    pull.pull(id_)
    if isinstance(error, Away):
        assert [(True,)] == database.rows("SELECT next_pull_at - failing_since > interval '55 seconds' FROM mailbox")


def test_operators_hear_of_a_mailbox_that_has_failed_for_long_and_of_its_recovery(
    apply, puller, database, server, user
) -> None:
    server.deliver(user, mail(1))
    id_ = apply()
    pull = puller(open_=fails_with(Away("nobody there")))
    for _ in range(10):
        pull.pull(id_)
    puller().pull(id_)

    assert [("mailbox_failing",), ("mailbox_active",)] == database.rows("SELECT kind FROM operator_event ORDER BY id")


def test_a_fault_of_ours_is_not_held_against_the_mailbox(apply, puller, server, user, inbox, database) -> None:
    server.deliver(user, mail(1))
    id_, pull = apply(), puller()
    inbox.away = True

    assert pull.pull(id_) == "internal"
    assert [(0, None, False)] == database.rows("SELECT failures, error, slow FROM mailbox")
    assert [(0,)] == database.rows("SELECT count(*) FROM mail_item")
    inbox.away = False
    assert drain(pull, id_)[-1] == "done"
    assert [1] == inbox.numbers()


def test_a_bug_in_a_kind_is_a_failure_like_others(apply, puller, database) -> None:
    assert puller(open_=fails_with(ZeroDivisionError())).pull(apply()) == "internal"
    assert [("internal: ZeroDivisionError",)] == database.rows("SELECT error FROM mailbox")


def test_a_session_that_died_while_it_was_kept_is_replaced(apply, puller, server, user, inbox) -> None:
    for number in range(450):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()
    assert pull.pull(id_) == "more"
    for process in server.processes():
        process.send_signal(signal.SIGKILL)

    assert pull.pull(id_, going_on=True) == "more"
    assert len(inbox.mails) == 400


def test_a_heartbeat_holds_the_lease_of_a_long_batch(apply, puller, server, user, engine, database) -> None:
    server.deliver(user, mail(1))
    id_ = apply()

    def slowly(mailbox, token) -> MailboxSession:
        with transaction(engine) as conn:
            conn.exec_driver_sql("UPDATE mailbox SET lease_until = now() + interval '1 second'")
        pull.beat()
        assert [(True,)] == database.rows("SELECT lease_until > now() + interval '20 seconds' FROM mailbox")
        return imap_mailbox.open_session(mailbox, token)

    pull = puller(open_=slowly)
    assert pull.pull(id_) == "done"
    pull.beat()
    assert [(None,)] == database.rows("SELECT lease_until FROM mailbox")


def test_a_thread_that_hangs_for_ever_loses_the_mailbox(apply, puller, server, user, inbox, database, monkeypatch) -> None:
    server.deliver(user, mail(1))
    id_ = apply()

    def stuck(mailbox, token) -> MailboxSession:
        monkeypatch.setattr(pull_puller, "LONGEST", 0.0)
        with database.connect() as conn:
            conn.execute("UPDATE mailbox SET lease_until = now()")
        pull.beat()
        assert drain(puller("another"), id_) == ["done"]
        return imap_mailbox.open_session(mailbox, token)

    pull = puller(open_=stuck)
    pull.pull(id_)
    assert [1] == inbox.numbers()


def test_a_pull_that_was_overtaken_does_not_end_the_heartbeat_of_the_next(
    apply, puller, server, user, database, engine
) -> None:
    server.deliver(user, mail(1))
    id_ = apply()
    depth = []

    def slowly(mailbox, token) -> MailboxSession:
        depth.append(1)
        if len(depth) == 1:
            ops_mailboxes.resync(engine, ops_mailboxes.Named("acme", "support", "ada"), None)
            overtaken = threading.Thread(target=pull.pull, args=(id_,))
            overtaken.start()
            while len(depth) < 2:
                time.sleep(0.01)
            threads.append(overtaken)
        elif len(depth) == 2:
            assert ended.wait(60)
            with database.connect() as conn:
                conn.execute("UPDATE mailbox SET lease_until = now() + interval '1 second'")
            pull.beat()
            beaten.append(database.rows("SELECT lease_until > now() + interval '20 seconds' FROM mailbox"))
        return imap_mailbox.open_session(mailbox, token)

    pull, ended, beaten, threads = puller(open_=slowly), threading.Event(), [], []
    assert pull.pull(id_) == "fenced"
    ended.set()
    threads[0].join(60)
    assert [[(True,)]] == beaten


def test_a_process_that_is_to_end_hands_back_unfinished_pulls(apply, puller, server, user, inbox, database) -> None:
    server.deliver(user, mail(1))
    id_ = apply()

    def slowly(mailbox, token) -> MailboxSession:
        pull.let_go()
        return imap_mailbox.open_session(mailbox, token)

    pull = puller(open_=slowly)
    assert pull.pull(id_) == "fenced"
    assert [(None, True)] == database.rows("SELECT lease_until, next_pull_at <= now() FROM mailbox")
    assert drain(puller("another"), id_) == ["done"]
    assert set(inbox.numbers()) == {1}


def test_a_mail_that_is_too_large_is_noted_and_passed(apply, puller, server, user, inbox, database, monkeypatch) -> None:
    monkeypatch.setattr(imap_mailbox, "MAX_MAIL", 5000)
    server.deliver(user, mail(1))
    server.deliver(user, mail(2, 9000))
    server.deliver(user, mail(3))
    id_ = apply()
    drain(puller(), id_)

    assert [3, 1] == inbox.numbers()
    assert [(None, ["too_large"])] == database.rows("SELECT event_id, flags FROM mail_item WHERE size > 5000")


@pytest.mark.parametrize("way", ["resync", "apply"])
def test_a_mailbox_that_is_begun_anew_in_the_middle_of_a_pull_is_begun_anew(
    way, apply, puller, server, user, inbox, database, engine, monkeypatch
) -> None:
    for number in range(300):
        server.deliver(user, mail(number))
    id_, pull = apply(), puller()
    assert pull.pull(id_) == "more"
    accept = inbox.accept

    def in_the_middle(mailbox: Mailbox, mails: Sequence[RawMail]) -> list[MailItem]:
        monkeypatch.setattr(inbox, "accept", accept)
        if way == "resync":
            ops_mailboxes.resync(engine, ops_mailboxes.Named("acme", "support", "ada"), None)
        else:
            apply(login=f"{user}-elsewhere")
        return accept(mailbox, mails)

    monkeypatch.setattr(inbox, "accept", in_the_middle)

    assert pull.pull(id_, going_on=True) == "fenced"
    assert [(0,)] == database.rows("SELECT count(*) FROM mailbox_cursor")
    assert [(None,)] == database.rows("SELECT lease_until FROM mailbox")  # no process waits for a fenced one


def test_a_refusal_that_comes_after_new_credentials_is_not_about_them(apply, puller, server, user, inbox, database) -> None:
    def refused(mailbox, token) -> MailboxSession:
        apply()
        raise Refused("wrong password")

    id_ = apply(password="wrong")
    puller(open_=refused).pull(id_)

    assert [("active", 0)] == database.rows("SELECT state, failures FROM mailbox")


@pytest.mark.parametrize("elsewhere", ["login", "host"])
def test_a_mailbox_elsewhere_holds_nothing_because_its_numbers_are_the_same(
    elsewhere, apply, puller, server, user, inbox
) -> None:
    server.deliver(user, mail(1))
    server.deliver(user, mail(2))
    drain(puller(), id_ := apply())
    wait_for(lambda: not server.processes())  # one that ends still writes its list
    box = server.maildir(user)
    listed = (box / "dovecot-uidlist").read_text().partition("\n")[0]
    if elsewhere == "login":
        box = server.maildir(user := f"{user}-new")
    else:
        for index in box.glob("dovecot*"):
            index.unlink()
        for path in server.files(user):
            path.unlink()
    server.deliver(user, mail(11))
    (box / "dovecot-uidlist").write_text(re.sub(r" N\d+", " N1", listed) + "\n")
    os.chown(box / "dovecot-uidlist", server.uid, server.gid)
    assert apply(login=user, host="localhost" if elsewhere == "host" else "127.0.0.1") == id_
    inbox.clear()
    drain(puller(), id_)

    assert [11] == inbox.numbers()


def test_mails_older_than_what_was_wanted_are_read_when_they_are_wanted(apply, puller, server, user, inbox) -> None:
    day = 86_400
    for number, days in ((1, 300), (2, 100), (3, 1)):
        server.deliver(user, mail(number), at=time.time() - days * day)
    since = datetime.now(UTC).date() - timedelta(days=200)
    drain(puller(), apply(f"sync_from: {since}"))
    assert [3, 2] == inbox.numbers()
    drain(puller(), apply(f"sync_from: {since - timedelta(days=200)}"))

    assert [3, 2, 1] == inbox.numbers()


def test_what_arrives_in_one_folder_does_not_wait_because_another_is_empty(apply, puller, server, user, inbox) -> None:
    server.make(user, "Empty")
    server.make(user)
    id_, pull = apply("folders: [INBOX, Empty]"), puller()
    drain(pull, id_)
    for number in range(250):
        server.deliver(user, mail(number))
    drain(pull, id_)

    assert list(range(250)) == inbox.numbers()


def test_what_arrives_in_a_folder_that_is_new_is_no_less_new(apply, puller, server, user, inbox) -> None:
    server.deliver(user, mail(1))
    id_, pull = apply("folders: ['*']"), puller()
    drain(pull, id_)
    server.deliver(user, mail(2), "Filtered", at=time.time() + 1)  # a rule on the server creates the folder
    server.deliver(user, mail(3), "Filtered", at=time.time() - 3600)
    drain(pull, id_)

    assert {1: True, 2: False, 3: True} == {
        number: each.backfill for number, each in zip(inbox.numbers(), inbox.mails, strict=True)
    }


def test_a_mailbox_whose_secrets_cannot_be_opened_says_so(apply, puller, server, user, database) -> None:
    id_ = apply()
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET credentials = 'x'")

    assert puller().pull(id_) == "internal"
    assert [(1, True, None)] == database.rows("SELECT failures, error LIKE '%%WAXSEAL_KEYS%%', lease_until FROM mailbox")


def test_no_message_id_neither_loses_nor_merges(apply, puller, server, user, inbox, database, engine) -> None:
    for number in range(3):
        server.deliver(user, b"Subject: number %d\r\n\r\nhello %d\r\n" % (number, number))
    server.deliver(user, b"Subject: number 2\r\n\r\nhello 2\r\n")
    id_ = apply()
    drain(puller(), id_)

    assert sorted(inbox.numbers()) == [0, 1, 2, 2]
    with transaction(engine) as conn:
        assert {"held": 4, "unfetched": 0, "conflicts": 0} == mail_items.count(conn, id_)
        found = mailboxes.get(conn, id_, database.vault.decrypt)
    assert found is not None
    assert [(3,)] == database.rows("SELECT count(DISTINCT event_id) FROM mail_item")


def test_a_batch_is_over_in_its_time(server, user) -> None:
    assert 4 < PullBounds(until=time.monotonic() + 50).seconds() <= 50
    with pytest.raises(Away):
        PullBounds(until=time.monotonic() - 1).seconds()
    assert timedelta(seconds=10) < LEASE
