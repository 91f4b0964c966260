"""Statements that remove what is kept no longer, by functions of the database that run as its owner (migrations 0025 on)."""

from datetime import date, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

REMOVE_DELIVERIES = text("SELECT last, removed, more FROM remove_deliveries(:before, :after, :most)")
DROP_ATTEMPTS = text("SELECT drop_attempts(:before)")
REMOVE_MAIL_ITEMS = text("SELECT remove_mail_items(:before, :most)")
REMOVE_TOLD = text("SELECT remove_told(:what, :before, :most)")

# Reads the whole table of deliveries, for an operator who asks.
COUNT_DELIVERIES = text("SELECT count(*) FROM removable_delivery WHERE settled_at < :before")
PAST = text("SELECT state, CAST(sum(n) AS bigint) FROM past_delivery GROUP BY 1")
_COUNT: Final = "SELECT count(*) FROM {} WHERE at < :before"
COUNTS: Final = {
    **{name: text(_COUNT.format(table)) for name, table in (("operator_events", "operator_event"), ("audit", "audit"))},
    "mail_items": text("""
        SELECT count(DISTINCT (mailbox_id, source_key)) FROM mail_item JOIN compared_folder USING (mailbox_id, folder)
        WHERE listed_at < least(until, :before) AND starts_with(source_key, keys)"""),
}

# Each from the beginning of an index. The oldest delivery is the one with the lowest number.
OLDEST = text("""
    SELECT (SELECT created_at FROM delivery ORDER BY id LIMIT 1) AS deliveries,
      (SELECT min(CAST(to_date(right(relname, 8), 'YYYYMMDD') AS timestamp)) AT TIME ZONE 'UTC'
       FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
       WHERE inhparent = 'attempt'::regclass AND relname ~ '^attempt_[0-9]{8}$') AS attempts,
      (SELECT decided_at FROM dead_letter WHERE state <> 'open' ORDER BY decided_at LIMIT 1) AS dead_letters,
      (SELECT at FROM operator_event ORDER BY id LIMIT 1) AS operator_events,
      (SELECT at FROM audit ORDER BY id LIMIT 1) AS audit,
      (SELECT ended_at FROM verification WHERE faults = 0 ORDER BY id LIMIT 1) AS verifications,
      mail_items_since() AS mail_items""")


class Page(NamedTuple):
    """How many of a page of deliveries were removed; the number to go on from; and whether there may be more."""

    last: int | None
    removed: int
    more: bool


def remove_deliveries(conn: Connection, before: datetime, after: int, most: int) -> Page:
    """Removes those among the `most` deliveries after number `after` that were delivered or discarded before then.

    Left are those that attempts or dead letters refer to, and those that another session has locked.
    """
    return Page(*conn.execute(REMOVE_DELIVERIES, {"before": before, "after": after, "most": most}).one())


def drop_attempts(conn: Connection, before: datetime) -> date | None:
    """Drops the oldest day of attempts if it ended before then; returns it.

    Raises Postgres' lock_not_available if attempts are in use for longer than writers may wait.
    """
    dropped: date | None = conn.execute(DROP_ATTEMPTS, {"before": before}).scalar()
    return dropped


def remove_told(conn: Connection, what: str, before: datetime, most: int) -> int:
    """Removes at most `most` dead_letters, operator_events, endpoint_events, verifications, acts or mail_items.

    Returns how many rows. Of mail_items only those that their mailbox no longer has.
    """
    if what == "mail_items":
        return int(conn.execute(REMOVE_MAIL_ITEMS, {"before": before, "most": most}).scalar_one())
    return int(conn.execute(REMOVE_TOLD, {"what": what, "before": before, "most": most}).scalar_one())


def count_deliveries(conn: Connection, before: datetime) -> int:
    """How many deliveries `remove_deliveries` would remove."""
    return int(conn.execute(COUNT_DELIVERIES, {"before": before}).scalar_one())


def past_deliveries(conn: Connection) -> dict[str, int]:
    """How many were removed, by the state in which they ended."""
    return {row[0]: row[1] for row in conn.execute(PAST)}


def count_told(conn: Connection, what: str, before: datetime) -> int:
    """How many operator_events, mail_items or rows of the audit are older and would be removed."""
    return int(conn.execute(COUNTS[what], {"before": before}).scalar_one())


def oldest(conn: Connection) -> dict[str, datetime | None]:
    """Since when there are deliveries, attempts, closed dead letters, operator events, acts of the audit and verifications.

    Of mails when that was last listed which was not listed for longest.
    """
    return dict(conn.execute(OLDEST).mappings().one())
