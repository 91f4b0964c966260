"""Operators' commands on mailboxes: list, status, pause, resume, resync, sync."""

import json

import pytest
from sqlalchemy import Engine, text

from ops.admin import mailboxes as ops_mailboxes
from ops.errors import NotReady
from ops.runtime.db import transaction
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import mailboxes, unreadable_folders
from pipeline.store.mail.items import Position
from schemas.mailbox import MailItem

FILE = """\
tenants: [{name: acme}, {name: other}]
mailboxes:
  - {tenant: acme, name: support, kind: imap, host: mx.example, username: us, password: secret}
"""


@pytest.fixture(autouse=True)
def _mailbox(apply) -> None:
    apply()


def state(database) -> tuple:
    return database.rows("SELECT state, reason, failures FROM mailbox")[0]


def test_mailboxes_are_listed_and_shown_with_their_progress(cli, database, engine: Engine) -> None:
    id_ = database.rows("SELECT id FROM mailbox")[0][0]
    (at,) = database.rows("SELECT now()")[0]
    with transaction(engine) as conn:
        mail_items.put_position(conn, id_, Position("INBOX", "backfill", {"below": 7}, 3, 10), at)
        mail_items.put_position(conn, id_, Position("INBOX", "new", {"uid": 10}), at)
        mail_items.add(conn, id_, [MailItem("imap/1/9/INBOX", "INBOX", "a@b", 5, at, "sha256:x")], at)

    assert "3 of 10" in cli.output("mailbox", "list")
    shown = json.loads(cli.output("mailbox", "status", "acme", "support", "--json"))
    assert (3, 10, False, 1, 0) == (
        *(shown[name] for name in ("backfill_done", "backfill_total", "backfill_finished", "held", "conflicts")),
    )
    assert [("INBOX", "new"), ("INBOX", "backfill")] == [(each["folder"], each["lane"]) for each in shown["by_folder"]]
    assert "secret" not in cli.output("mailbox", "status", "acme", "support")
    assert "no mailboxes" in cli.output("mailbox", "list", "other")


def test_a_mailbox_is_paused_and_resumed_and_that_is_noted(cli, database) -> None:
    said = cli.output("mailbox", "pause", "acme", "support", "--reason", "they move", "--by", "ada")
    assert "acme/support is paused" in said
    assert ("paused", "they move", 0) == state(database)
    assert "was not active" in cli.output("mailbox", "pause", "acme", "support")

    assert {"tenant": "acme", "mailbox": "support", "changed": True} == json.loads(
        cli.output("mailbox", "resume", "acme", "support", "--json")
    )
    assert ("active", None, 0) == state(database)
    assert "was active already" in cli.output("mailbox", "resume", "acme", "support")
    assert [("mailbox pause",), ("mailbox resume",)] == database.rows("SELECT act FROM audit ORDER BY id")
    assert "mailbox_paused" in (told := cli.output("events"))
    assert "support" in told


def test_a_resync_forgets_the_cursors_and_not_the_mails(cli, database, engine) -> None:
    id_ = database.rows("SELECT id FROM mailbox")[0][0]
    (at,) = database.rows("SELECT now()")[0]
    with transaction(engine) as conn:
        for folder in ("INBOX", "Sent"):
            mail_items.put_position(conn, id_, Position(folder, "new", {"uid": 10}), at)
        mail_items.add(conn, id_, [MailItem("imap/1/9/INBOX", "INBOX", "a@b", 5, at, "sha256:x")], at)

    assert "reads no folder 'Spam', but INBOX, Sent" in cli.output(
        *("mailbox", "resync", "acme", "support", "--folder", "Spam"), code=2
    )
    cli.output("mailbox", "resync", "acme", "support", "--folder", "Sent")
    assert [("INBOX",)] == database.rows("SELECT folder FROM mailbox_cursor")
    cli.output("mailbox", "resync", "acme", "support")
    assert [(0, 1)] == database.rows("SELECT (SELECT count(*) FROM mailbox_cursor), (SELECT count(*) FROM mail_item)")


def test_a_sync_makes_mailboxes_due_also_failing_ones(cli, database) -> None:
    with database.connect() as conn:
        conn.execute(
            "UPDATE mailbox SET next_pull_at = now() + interval '1 h', failures = 3, error = 'x', failing_since = now()"
        )
    assert "asked for 1 mailbox" in cli.output("mail", "sync")
    assert [(True,)] == database.rows("SELECT next_pull_at <= now() FROM mailbox")
    assert "not pulled within 1 s: acme/support" in cli.output("mail", "sync", "acme", "support", "--wait", "1", code=2)
    cli.output("mailbox", "pause", "acme", "support")
    assert "asked for 0 mailboxes" in cli.output("mail", "sync")
    assert "acme/support is not pulled, it is paused: by an operator" in cli.output("mail", "sync", "acme", "support", code=2)


def test_waiting_for_a_sync_tells_what_failed(cli, database, engine) -> None:
    id_ = database.rows("SELECT id FROM mailbox")[0][0]
    (at,) = database.rows("SELECT now()")[0]
    from ops.admin.mailboxes import wait_synced

    with transaction(engine) as conn:
        mailboxes.move(conn, id_, "needs_reauthorization", "refused", at)
    assert ["acme/support: refused"] == wait_synced(engine, [(id_, "acme/support", at)], 1, lambda _done: None)
    with database.connect() as conn:
        conn.execute(
            "UPDATE mailbox SET state = 'active', reason = NULL, failures = 1, error = 'away', failing_since = now(),"
            " next_pull_at = now() + interval '1 h'"
        )
    assert ["acme/support: away"] == wait_synced(engine, [(id_, "acme/support", at)], 1, lambda _done: None)
    with database.connect() as conn:
        conn.execute(
            "UPDATE mailbox SET failures = 0, error = NULL, failing_since = NULL, began_at = now(), pulled_at = now(),"
            " next_pull_at = now()"
        )
    with pytest.raises(NotReady):  # a batch is done, and there is more
        wait_synced(engine, [(id_, "acme/support", at)], 0.3, lambda _done: None)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET next_pull_at = now() + interval '1 h'")
    assert [] == wait_synced(engine, [(id_, "acme/support", at)], 1, lambda _done: None)


def test_the_status_of_the_system_counts_mailboxes(cli, database) -> None:
    assert {"active": 1} == json.loads(cli.output("status", "--json"))["mailboxes"]
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET failures = 1, error = 'away', failing_since = now()")
    assert "1 failing" in cli.output("status")


@pytest.mark.parametrize("act", ["status", "pause", "resume", "resync"])
def test_a_mailbox_that_there_is_not_is_said(cli, act) -> None:
    assert "there is no mailbox acme/nothing" in cli.output("mailbox", act, "acme", "nothing", code=2)


def test_a_folder_that_cannot_be_read_is_shown_and_makes_the_mailbox_no_failing_one(cli, database, engine) -> None:
    id_ = database.rows("SELECT id FROM mailbox")[0][0]
    (at,) = database.rows("SELECT now()")[0]
    with transaction(engine) as conn:
        mail_items.put_position(conn, id_, Position("INBOX", "backfill", {}, 1, 1, at), at, finished=True)
        mail_items.put_position(conn, id_, Position("Gone", "backfill", {}, 3, 10), at)
        unreadable_folders.put(conn, id_, {"Gone": "Mailbox doesn't exist"}, at)
        conn.execute(text("UPDATE mailbox SET began_at = now(), pulled_at = now() + interval '1 h', next_pull_at = now()"))

    listed = cli.output("mailbox", "list")
    assert "1 folder cannot be read" in listed
    assert "failing" not in listed
    shown = json.loads(cli.output("mailbox", "status", "acme", "support", "--json"))
    (unreadable,) = shown["unreadable_folders"]
    assert ("Gone", "Mailbox doesn't exist") == (unreadable["folder"], unreadable["error"])
    assert unreadable["since"] is not None
    assert "Mailbox doesn't exist" in cli.output("mailbox", "status", "acme", "support")
    assert shown["backfill_finished"]


def test_waiting_for_a_mailbox_says_which_folder_could_not_be_read(cli, database, engine) -> None:
    id_ = database.rows("SELECT id FROM mailbox")[0][0]
    (at,) = database.rows("SELECT now()")[0]
    asked = ops_mailboxes.sync(engine, "acme", "support")
    with transaction(engine) as conn:
        mail_items.put_position(conn, id_, Position("Gone", "backfill", {}, 3, 10), at)
        unreadable_folders.put(conn, id_, {"Gone": "Mailbox doesn't exist"}, at)
        conn.execute(text("UPDATE mailbox SET began_at = now(), pulled_at = now(), next_pull_at = now() + interval '1 h'"))

    assert ["acme/support: Gone: Mailbox doesn't exist"] == ops_mailboxes.wait_synced(engine, asked, 2, lambda _done: None)
