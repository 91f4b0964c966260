"""Statements on what a provider gave a mailbox: tokens, sealed, one value for each mailbox."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

# The clock is Postgres': those who hold a claim on a refresh may run on machines whose clocks differ.
READ = text("SELECT tokens, now() AS now FROM mailbox WHERE id = :id")

# Whoever comes second finds another value and changes nothing: so no token that was given is ever written over unseen.
SWAP = text("UPDATE mailbox SET tokens = :new WHERE id = :id AND tokens IS NOT DISTINCT FROM CAST(:old AS bytea)")


class Stored(NamedTuple):
    """What is stored, sealed, and when it was read."""

    sealed: bytes | None
    now: datetime


def read(conn: Connection, mailbox_id: int) -> Stored | None:
    """What is stored for the mailbox; None when there is no such mailbox."""
    row = conn.execute(READ, {"id": mailbox_id}).one_or_none()
    return None if row is None else Stored(None if row.tokens is None else bytes(row.tokens), row.now)


def swap(conn: Connection, mailbox_id: int, old: bytes | None, new: bytes) -> bool:
    """Whether `new` took the place of `old`; nothing is changed when something else stood there."""
    return conn.execute(SWAP, {"id": mailbox_id, "old": old, "new": new}).rowcount == 1
