"""Statements on the OAuth tokens of mailboxes: encrypted, one value for each mailbox."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

# Uses Postgres' clock: processes that claim a refresh may run on machines whose clocks differ.
READ = text("SELECT tokens, now() AS now FROM mailbox WHERE id = :id")

# Compare and swap: a second writer finds another value and changes nothing, so no new token is overwritten unseen.
SWAP = text("UPDATE mailbox SET tokens = :new WHERE id = :id AND tokens IS NOT DISTINCT FROM CAST(:old AS bytea)")


class Stored(NamedTuple):
    """The stored tokens, encrypted, and when they were read."""

    sealed: bytes | None
    now: datetime


def read(conn: Connection, mailbox_id: int) -> Stored | None:
    """The tokens stored for the mailbox; None when the mailbox does not exist."""
    row = conn.execute(READ, {"id": mailbox_id}).one_or_none()
    return None if row is None else Stored(None if row.tokens is None else bytes(row.tokens), row.now)


def swap(conn: Connection, mailbox_id: int, old: bytes | None, new: bytes) -> bool:
    """Replaces `old` by `new`; returns False, and changes nothing, when another value is stored."""
    return conn.execute(SWAP, {"id": mailbox_id, "old": old, "new": new}).rowcount == 1
