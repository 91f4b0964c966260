"""Mailboxes of a configuration file: applied, compared, pruned, and sealed."""

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from ops.config.apply import Difference
from ops.errors import Misconfigured, OpsError
from ops.runtime.db import transaction
from ops.settings import Settings
from pipeline.errors import Unreadable
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailboxes
from pipeline.store.mail.items import Position
from schemas.mailbox import Mailbox, MailItem

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """\
tenants: [{name: acme}]
sources: [{tenant: acme, name: orders, kind: amqp}]
mailboxes:
  - {tenant: acme, name: support, kind: imap, host: mx.example, username: us@acme.example, password: first}
  - {tenant: acme, name: sales, kind: gmail, username: s@acme.example, oauth: {client_id: app, refresh_token: long}}
"""


def stored(database, engine: Engine) -> dict[str, tuple[Mailbox, str]]:
    with transaction(engine) as conn:
        return {name: found for (_, name), found in mailboxes.load(conn, database.vault.decrypt).items()}


def told(difference: Difference) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(change.action, change.name, change.details) for change in difference.changed]


def test_what_is_applied_is_what_is_pulled(apply, database, engine) -> None:
    changed = told(apply())
    found = stored(database, engine)

    assert changed == [
        ("created", "acme", ()),
        ("created", "orders", ("amqp",)),
        ("created", "support", ("imap",)),
        ("created", "sales", ("gmail",)),
    ]
    support, state = found["support"]
    assert ("imap", "mx.example", 993, "us@acme.example", "first", "active") == (
        *(support.kind, support.host, support.port, support.username, support.password),
        state,
    )
    sales = found["sales"][0]
    assert sales.oauth is not None
    assert ("long", "https://oauth2.googleapis.com/token") == (sales.oauth.refresh_token, sales.oauth.token_url)
    assert [("imap",), ("gmail",)] == database.rows("SELECT kind FROM source WHERE name IN ('support', 'sales') ORDER BY id")


def test_applying_again_changes_nothing(apply, database) -> None:
    apply()
    version = database.rows("SELECT version FROM catalog")

    assert [] == told(apply())
    assert version == database.rows("SELECT version FROM catalog")


def test_a_dry_run_and_a_bad_name_store_nothing(apply, database) -> None:
    assert len(told(apply(dry_run=True))) == 4
    apply(FILE.replace("name: support", "name: other"))

    with pytest.raises(Misconfigured, match="acme/orders is a source already"):
        apply(FILE.replace("name: support", "name: orders").replace("sources: [{tenant: acme, name: orders, kind: amqp}]", ""))
    with pytest.raises(Misconfigured, match="acme/other is a mailbox already"):
        apply(FILE.replace("name: orders", "name: other"))
    assert [("other",), ("sales",)] == database.rows("SELECT name FROM source JOIN mailbox USING (id) ORDER BY id")


def test_secrets_are_sealed_for_their_mailbox_alone(apply, database, engine) -> None:
    apply()

    (row,) = database.rows(
        "SELECT mailbox.settings::text, credentials FROM mailbox JOIN source USING (id) WHERE name = 'support'"
    )
    assert "first" not in row[0]
    assert b"first" not in row[1]
    with database.connect() as conn:
        conn.execute(
            "UPDATE mailbox SET credentials = (SELECT credentials FROM mailbox JOIN source USING (id) WHERE kind = 'gmail')"
        )
    with pytest.raises(Unreadable, match="stored for another mailbox"):
        stored(database, engine)


def test_other_credentials_make_a_refused_mailbox_active_and_forget_its_tokens(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    with transaction(engine) as conn:
        mailboxes.put_tokens(conn, id_, b"sealed")
        assert mailboxes.move(conn, id_, "needs_reauthorization", "refused", NOW)
    kept = "SELECT state, reason, tokens FROM mailbox WHERE id = %s"

    apply(FILE.replace("host: mx", "poll: 10s, host: mx"))
    assert [("needs_reauthorization", "refused", b"sealed")] == database.rows(kept, id_)
    changed = told(apply(FILE.replace("password: first", "password: second")))

    assert [("changed", "support", ("password changed", "poll: 10 -> 300", "active again"))] == changed
    assert [("active", None, None)] == database.rows(kept, id_)
    assert [("mailbox_active", id_)] == database.rows("SELECT kind, source_id FROM operator_event")


def test_a_paused_mailbox_stays_paused(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    with transaction(engine) as conn:
        mailboxes.move(conn, id_, "paused", "by ada", NOW)
    apply(FILE.replace("password: first", "password: second"))

    assert stored(database, engine)["support"][1] == "paused"


def test_a_mailbox_that_moves_to_another_server_is_read_from_its_beginning(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    with transaction(engine) as conn:
        mail_items.put_position(conn, id_, Position("INBOX", "new", {"uid": 7}), NOW)
    apply(FILE.replace("password: first", "password: second"))
    assert [(1,)] == database.rows("SELECT count(*) FROM mailbox_cursor")
    apply(FILE.replace("mx.example", "mx2.example"))

    assert [(0,)] == database.rows("SELECT count(*) FROM mailbox_cursor")


def test_pruning_removes_a_mailbox_with_all_that_was_known_of_it(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    with transaction(engine) as conn:
        mail_items.add(conn, id_, [MailItem("imap/1/1/INBOX", "INBOX", None, 1, NOW, "sha256:x")], NOW)
    without = "\n".join(line for line in FILE.splitlines() if "support" not in line)

    assert [] == told(apply(without))
    assert [("removed", "support", ())] == told(apply(without, prune=True))
    assert ["sales"] == list(stored(database, engine))
    assert [(0,)] == database.rows("SELECT count(*) FROM mail_item")


def test_a_worker_may_pull_and_not_configure(apply, database) -> None:
    apply()
    with psycopg.connect(database.worker_url) as conn:
        conn.execute("UPDATE mailbox SET tokens = 'x', failures = 0")
        for statement in ("UPDATE mailbox SET credentials = 'x'", "DELETE FROM mailbox", "INSERT INTO mailbox (id) VALUES (9)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'asleep', reason = 'x'",
        "state = 'paused'",
        "reason = 'x'",
        "lease_owner = 'me'",
        "failures = 1",
        "error = 'x'",
        "failures = -1, error = 'x', failing_since = now()",
    ],
)
def test_postgres_proves_the_states(apply, database, change) -> None:
    apply()

    with pytest.raises(psycopg.errors.CheckViolation), database.connect() as conn:
        conn.execute(f"UPDATE mailbox SET {change}")


def test_two_never_hold_one_lease(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    later, much_later = NOW.replace(hour=1), NOW.replace(hour=2)
    with transaction(engine) as conn:
        first = mail_leases.take(conn, id_, "a", NOW, later)
        assert mail_leases.take(conn, id_, "b", NOW, later) is None
        second = mail_leases.take(conn, id_, "b", later, much_later)
        assert first is not None
        assert second is not None

        assert not mail_leases.still_mine(conn, first, much_later)
        assert mail_leases.failed(conn, first, "late", later, much_later) is None
        assert mail_leases.still_mine(conn, second, much_later)
        mail_leases.succeeded(conn, second, later, later, much_later, enqueued=False, slow=False)
        assert not mail_leases.still_mine(conn, second, much_later)


def test_a_bell_in_the_middle_of_a_pull_is_not_lost(apply, database, engine) -> None:
    apply()
    id_ = stored(database, engine)["support"][0].id
    later = NOW.replace(hour=1)
    with transaction(engine) as conn:
        lease = mail_leases.take(conn, id_, "a", NOW, later)
        assert lease is not None
        assert mail_leases.make_due(conn, [id_], NOW.replace(minute=1)) == 1
        mail_leases.succeeded(conn, lease, NOW, NOW.replace(minute=2), later, enqueued=False, slow=False)

        assert id_ in {each.id for each in mail_leases.due(conn, NOW.replace(minute=2), NOW, 10)}
        assert mail_leases.due(conn, NOW.replace(minute=2), NOW, 10) == []


def test_a_secret_that_no_key_opens_is_said(apply, database, engine) -> None:
    apply()
    other = Settings(database_url=database.url, keys="A" * 43 + "=")

    with pytest.raises(OpsError, match="WAXSEAL_KEYS"), transaction(engine) as conn:
        from ops.runtime.vault import Vault

        mailboxes.load(conn, Vault(other.fernet_keys()).decrypt)
