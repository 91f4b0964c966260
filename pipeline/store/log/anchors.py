"""Statements on where checkpoints were published and anchored. The rows are receipts: nothing is taken from them for true."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, text

ADD = text("""
    INSERT INTO anchor (log_id, size, kind, place, at, receipt) VALUES (:log, :size, :kind, :place, :now, :receipt)""")

PUBLISHED_AT = text("SELECT DISTINCT place FROM anchor WHERE log_id = :log AND kind = 'published'")

NEWEST = text("""
    SELECT DISTINCT ON (log_id, kind, place) log_id, kind, place, size, at FROM anchor
    WHERE kind <> 'published' AND log_id = ANY(:logs) ORDER BY log_id, kind, place, size DESC""")

LAST = text("""
    SELECT size, at FROM anchor WHERE log_id = :log AND kind = :kind AND place = :place ORDER BY size DESC LIMIT 1""")

RECEIPTS = text("SELECT kind, place, at, receipt FROM anchor WHERE log_id = :log AND size = :size AND kind = :kind ORDER BY id")


def add(conn: Connection, log_id: int, size: int, kind: str, place: str, receipt: bytes, now: datetime) -> None:
    """Keep what a place gave for the checkpoint of this size, which was checked before."""
    conn.execute(ADD, {"log": log_id, "size": size, "kind": kind, "place": place, "receipt": receipt, "now": now})


def published_at(conn: Connection, log_id: int) -> list[str]:
    """The places where the log was ever published."""
    return list(conn.execute(PUBLISHED_AT, {"log": log_id}).scalars())


def last(conn: Connection, log_id: int, kind: str, place: str) -> tuple[int, datetime] | None:
    """The largest size of the log that was anchored at the place, and when."""
    row = conn.execute(LAST, {"log": log_id, "kind": kind, "place": place}).one_or_none()
    return None if row is None else (row[0], row[1])


def newest(conn: Connection, log_ids: Sequence[int]) -> Sequence[RowMapping]:
    """By log and place: the largest size that was anchored there, and when."""
    return conn.execute(NEWEST, {"logs": list(log_ids)}).mappings().all()


def receipts(conn: Connection, log_id: int, size: int, kind: str) -> Sequence[RowMapping]:
    """What places of this kind gave for the checkpoint of this size: cosignatures, or time stamps."""
    return conn.execute(RECEIPTS, {"log": log_id, "size": size, "kind": kind}).mappings().all()
