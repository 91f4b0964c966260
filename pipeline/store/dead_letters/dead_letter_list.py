"""Statements that show dead letters to people, and count them before anything is done to them. None of them locks or writes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from schemas.dead_letter import Stage

_LETTER = """
    SELECT dead_letter.id, stage, dead_letter.state, dead_letter.reason, dead_letter.error, detail, dead_letter.tenant, source,
           endpoint.name AS endpoint, delivery_id, event_id, routing_key, dead_letter.attempts, first_at, last_at,
           decided_at, decided_by{more}
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id"""

# The conditions that are not asked for are folded away when the statement is planned.
CHOSEN = """
      (:closed OR dead_letter.state = 'open')
      AND (CAST(:ids AS bigint[]) IS NULL OR dead_letter.id = ANY(CAST(:ids AS bigint[])))
      AND (CAST(:tenant AS text) IS NULL OR dead_letter.tenant = :tenant)
      AND (CAST(:endpoint AS text) IS NULL OR endpoint.name = :endpoint)
      AND (CAST(:reason AS text) IS NULL OR dead_letter.reason = :reason)
      AND (CAST(:stage AS text) IS NULL OR stage = :stage)
      AND (CAST(:since AS timestamptz) IS NULL OR last_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR last_at < :until)"""

# Newest first, in pages by id.
_LETTERS = _LETTER + " WHERE dead_letter.id < :before AND {chosen} ORDER BY dead_letter.id DESC LIMIT :limit"
LETTERS = text(_LETTERS.format(more="", chosen=CHOSEN))

# With the place in the ledger that a delivery's letter refers to, instead of a copy of the content.
LETTER = text(
    _LETTER.format(more=", content_type, headers, body, blob, chain_id, seq")
    + " LEFT JOIN delivery ON delivery.id = delivery_id WHERE dead_letter.id = :id"
)

# The ids bound what is then done: what is buried in the meantime, perhaps for the second time, is left for the next time.
_COUNT = """
    SELECT stage, dead_letter.reason, dead_letter.tenant, endpoint.name AS endpoint, count(*) AS count,
           min(last_at) AS oldest, max(last_at) AS newest, min(dead_letter.id) AS first, max(dead_letter.id) AS last
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
    WHERE {chosen} GROUP BY 1, 2, 3, 4 ORDER BY count DESC, 1, 2, 3, 4"""
COUNT = text(_COUNT.format(chosen=CHOSEN))


# Letters outlive what they name, and a message may name a tenant that never was.
NAMED = text("""
    SELECT EXISTS (SELECT FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
                   WHERE (CAST(:tenant AS text) IS NULL OR dead_letter.tenant = :tenant)
                     AND (CAST(:endpoint AS text) IS NULL OR endpoint.name = :endpoint))""")


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: all that are open, unless something is asked for. Times are of the last thing that happened."""

    tenant: str | None = None
    endpoint: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[int] | None = None
    closed: bool = False  # the replayed and discarded ones too
    stage: Stage | None = None

    def asked(self) -> dict[str, object]:
        """What was asked for, without what was not; empty when it is all that are open."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of one stage, reason, tenant and endpoint, and between which ids they lie."""

    stage: Stage
    reason: str
    tenant: str | None
    endpoint: str | None
    count: int
    oldest: datetime
    newest: datetime
    first: int
    last: int


def dead_letters(conn: Connection, wanted: DeadLetterFilter, before: int, limit: int) -> Sequence[Row]:
    """The `limit` newest dead letters with ids below `before`, without their bodies."""
    return conn.execute(LETTERS, {**asdict(wanted), "before": before, "limit": limit}).mappings().all()


def dead_letter(conn: Connection, id_: int) -> Row | None:
    """One dead letter with all that was kept; None when there is none."""
    return conn.execute(LETTER, {"id": id_}).mappings().one_or_none()


def are_there(conn: Connection, tenant: str | None, endpoint: str | None = None) -> bool:
    """Whether there ever was a dead letter, not yet pruned, that names these."""
    return bool(conn.execute(NAMED, {"tenant": tenant, "endpoint": endpoint}).scalar_one())


def count(conn: Connection, wanted: DeadLetterFilter) -> list[Group]:
    """How many there are of what, the most first."""
    return [Group(*row) for row in conn.execute(COUNT, asdict(wanted))]
