"""Statements on the configuration and states of mailboxes, and which of it is stored in the clear, which encrypted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, text

from pipeline.errors import Unreadable
from pipeline.store.storable_text import storable
from schemas.mailbox import Mailbox, MailboxState, OAuth

Decrypt = Callable[[bytes], bytes]
Encrypt = Callable[[bytes], bytes]
EventKind = Literal[
    "mailbox_needs_reauthorization",
    "mailbox_failing",
    "mailbox_active",
    "mailbox_paused",
    "mailbox_folder_unreadable",
    "mailbox_folder_readable",
]

#: The fields that are not secret. The others are the name, which is the source's, and the credentials.
_PLAIN: Final = (
    "username",
    "folders",
    "host",
    "port",
    "tls",
    "ca",
    "api_url",
    "subject",
    "deliver_backfill",
    "authservs",
    "poll",
    "retention",
)

MAILBOXES = text("""
    SELECT mailbox.id, tenant.name AS tenant, source.name, source.kind, mailbox.settings, credentials, state
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id ORDER BY mailbox.id""")

MAILBOX = text("""
    SELECT mailbox.id, tenant.name AS tenant, source.name, source.kind, mailbox.settings, credentials, state
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id WHERE mailbox.id = :id""")

FIND = text("""
    SELECT source.id FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id
    WHERE tenant.name = :tenant AND source.name = :name""")

# New credentials make the tokens from the old ones invalid. The new epoch fences a pull under way, which began with the old
# configuration: it may write neither how far it read elsewhere, nor that the old credentials were refused.
PUT = text("""
    INSERT INTO mailbox (id, settings, credentials)
    SELECT source.id, CAST(:settings AS jsonb), :credentials FROM source JOIN tenant ON tenant.id = source.tenant_id
    WHERE tenant.name = :tenant AND source.name = :name
    ON CONFLICT (id) DO UPDATE SET settings = excluded.settings, credentials = excluded.credentials,
      tokens = CASE WHEN :anew THEN NULL ELSE mailbox.tokens END,
      next_pull_at = least(mailbox.next_pull_at, :now), enqueued_at = NULL,
      lease_epoch = mailbox.lease_epoch + 1, lease_owner = NULL, lease_until = NULL
    RETURNING id""")

# At another server or login, the stored cursors mean nothing.
FORGET_CURSORS = text("DELETE FROM mailbox_cursor WHERE mailbox_id = :id")
FORGET_OTHER_FOLDERS = text("DELETE FROM mailbox_cursor WHERE mailbox_id = :id AND folder <> ALL(CAST(:folders AS text[]))")
FORGET_ERRORS = text("""
    DELETE FROM mailbox_folder_error
    WHERE mailbox_id = :id AND (CAST(:folders AS text[]) IS NULL OR folder <> ALL(CAST(:folders AS text[])))""")
# UIDs at another server may be equal by chance: the old keys move to another generation, so that the mails are recognised by
# their headers. Another login reads another mailbox, however alike the mails are.
ANOTHER_SERVER = text("""
    UPDATE mail_item SET source_key = 'moved' || lease_epoch || '/-/' || source_key FROM mailbox
    WHERE mailbox_id = :id AND mailbox.id = :id AND starts_with(source_key, 'imap/')""")
ANOTHER_LOGIN = text("DELETE FROM mail_item WHERE mailbox_id = :id AND source_key !~ '^import/'")
FORGET_BEGINNING = text("UPDATE mailbox SET began_at = NULL, pulled_at = NULL, reconciled_at = NULL WHERE id = :id")

MOVE = text("""
    UPDATE mailbox SET state = :state, reason = :reason, state_at = :now, next_pull_at = :now, enqueued_at = NULL, slow = false,
      failures = CASE WHEN :state = 'active' THEN 0 ELSE failures END,
      failing_since = CASE WHEN :state = 'active' THEN NULL ELSE failing_since END,
      error = CASE WHEN :state = 'active' THEN NULL ELSE error END
    WHERE id = :id AND state <> :state AND (CAST(:from_ AS text) IS NULL OR state = :from_)""")

PUT_TOKENS = text("UPDATE mailbox SET tokens = :tokens WHERE id = :id")

NOTE = text("""
    INSERT INTO operator_event (at, kind, tenant, source_id, detail)
    SELECT :now, :kind, tenant.name, source.id, :detail FROM source JOIN tenant ON tenant.id = source.tenant_id
    WHERE source.id = :id""")


def load(conn: Connection, decrypt: Decrypt) -> dict[tuple[str, str], tuple[Mailbox, MailboxState]]:
    """Every mailbox by tenant and name, with its secrets decrypted, and its state."""
    found = [(mailbox_of(row, decrypt), row.state) for row in conn.execute(MAILBOXES)]
    return {(mailbox.tenant, mailbox.name): (mailbox, state) for mailbox, state in found}


def get(conn: Connection, id_: int, decrypt: Decrypt) -> Mailbox | None:
    """One mailbox, with its secrets decrypted; None when it does not exist."""
    row = conn.execute(MAILBOX, {"id": id_}).one_or_none()
    return None if row is None else mailbox_of(row, decrypt)


def find(conn: Connection, tenant: str, name: str) -> int | None:
    """The id of the mailbox of that name; None when it does not exist."""
    found: int | None = conn.execute(FIND, {"tenant": tenant, "name": name}).scalar()
    return found


def put(conn: Connection, mailbox: Mailbox, encrypt: Encrypt, now: datetime, *, anew: bool) -> int:
    """Creates the mailbox, whose source must exist, or replaces it; returns its id. `anew`: its credentials have changed."""
    row = {"tenant": mailbox.tenant, "name": mailbox.name, "settings": json.dumps(_settings(mailbox))}
    sealed = encrypt(json.dumps(_secrets(mailbox)).encode())
    return int(conn.execute(PUT, {**row, "credentials": sealed, "anew": anew, "now": now}).scalar_one())


def begin_elsewhere(conn: Connection, id_: int, *, same_login: bool) -> None:
    """Forgets how far it was read. With the same login, the held mails can be recognised; with another, they are forgotten."""
    conn.execute(FORGET_CURSORS, {"id": id_})
    conn.execute(FORGET_ERRORS, {"id": id_, "folders": None})
    conn.execute(FORGET_BEGINNING, {"id": id_})
    conn.execute(ANOTHER_SERVER if same_login else ANOTHER_LOGIN, {"id": id_})


def only_folders(conn: Connection, id_: int, folders: Sequence[str]) -> None:
    """Forgets how far all folders except these were read. Their mails stay held."""
    conn.execute(FORGET_OTHER_FOLDERS, {"id": id_, "folders": list(folders)})
    conn.execute(FORGET_ERRORS, {"id": id_, "folders": list(folders)})


def move(conn: Connection, id_: int, state: MailboxState, reason: str | None, now: datetime) -> bool:
    """Changes the state; returns whether it was another before. `active` has no reason, and resets the failures."""
    moved = {"id": id_, "state": state, "reason": storable(reason), "now": now, "from_": None}
    return conn.execute(MOVE, moved).rowcount == 1


def move_from(
    conn: Connection, id_: int, from_: MailboxState, state: MailboxState, now: datetime, reason: str | None = None
) -> bool:
    """As `move`, but only if the mailbox is in the state `from_`."""
    moved = {"id": id_, "state": state, "reason": storable(reason), "now": now, "from_": from_}
    return conn.execute(MOVE, moved).rowcount == 1


def put_tokens(conn: Connection, id_: int, sealed: bytes | None) -> None:
    """Stores the provider's tokens, encrypted; None deletes them."""
    conn.execute(PUT_TOKENS, {"id": id_, "tokens": sealed})


def note(conn: Connection, id_: int, kind: EventKind, detail: str, now: datetime) -> None:
    """Adds an operator event."""
    conn.execute(NOTE, {"id": id_, "kind": kind, "detail": storable(detail), "now": now})


def mailbox_of(row: Row[Any], decrypt: Decrypt) -> Mailbox:
    """The mailbox in a row. Raises `Unreadable` when its credentials were encrypted for another mailbox."""
    stored, secret = row.settings, json.loads(decrypt(row.credentials))
    if secret.pop("of") != _seal(row.tenant, row.name):
        raise Unreadable(f"the credentials of {row.tenant}/{row.name} were stored for another mailbox: apply them again")
    since = stored.get("sync_from")
    plain = {name: _tupled(stored[name]) for name in _PLAIN if name in stored}
    return Mailbox(
        row.id,
        row.tenant,
        row.name,
        row.kind,
        **plain,
        password=secret.get("password"),
        oauth=OAuth(**secret["oauth"]) if secret.get("oauth") else None,
        sync_from=datetime.fromisoformat(since) if since else None,
    )


def _settings(mailbox: Mailbox) -> Mapping[str, Any]:
    plain = {name: getattr(mailbox, name) for name in _PLAIN}
    return {**plain, "sync_from": mailbox.sync_from.isoformat() if mailbox.sync_from else None}


def _secrets(mailbox: Mailbox) -> Mapping[str, Any]:
    """The secrets, with their mailbox's name: Fernet authenticates no other data, so they could be copied to another row."""
    oauth = None if mailbox.oauth is None else asdict(mailbox.oauth)
    return {"of": _seal(mailbox.tenant, mailbox.name), "password": mailbox.password, "oauth": oauth}


def _seal(tenant: str, name: str) -> str:
    return f"{tenant}/{name}"


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
