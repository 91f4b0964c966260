"""Statements that list dead letters, and count them before a replay or discard. None of them locks or writes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from schemas.dead_letter import DeadLetterFilter, Stage

_DEAD_LETTER = """
    SELECT dead_letter.id, stage, dead_letter.state, dead_letter.reason, dead_letter.error, detail, dead_letter.tenant, source,
           endpoint.name AS endpoint, delivery_id, event_id, routing_key, dead_letter.attempts, first_at, last_at,
           decided_at, decided_by{more}
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id"""

# The planner removes the conditions whose parameters are null. Endpoints by number: it knows how many dead letters each has.
CHOSEN = """
      (:closed OR dead_letter.state = 'open')
      AND (CAST(:ids AS bigint[]) IS NULL OR dead_letter.id = ANY(CAST(:ids AS bigint[])))
      AND (CAST(:tenant AS text) IS NULL OR dead_letter.tenant = :tenant)
      AND (CAST(:endpoint_ids AS int[]) IS NULL OR dead_letter.endpoint_id = ANY(CAST(:endpoint_ids AS int[])))
      AND (CAST(:reason AS text) IS NULL OR dead_letter.reason = :reason)
      AND (CAST(:stage AS text) IS NULL OR stage = :stage)
      AND (CAST(:since AS timestamptz) IS NULL OR last_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR last_at < :until)"""

# Newest first, in pages by id.
_DEAD_LETTERS = _DEAD_LETTER + " WHERE dead_letter.id < :before AND {chosen} ORDER BY dead_letter.id DESC LIMIT :limit"
DEAD_LETTERS = text(_DEAD_LETTERS.format(more="", chosen=CHOSEN))

# With the chain and number that a delivery's dead letter refers to, instead of a copy of the content.
DEAD_LETTER = text(
    _DEAD_LETTER.format(more=", content_type, headers, body, blob, chain_id, seq")
    + " LEFT JOIN delivery ON delivery.id = delivery_id WHERE dead_letter.id = :id"
    + " AND (CAST(:tenant AS text) IS NULL OR dead_letter.tenant = :tenant)"
)

# The ids bound the act that follows: dead letters buried meanwhile, perhaps for the second time, are left for the next act.
_COUNT = """
    SELECT stage, dead_letter.reason, dead_letter.tenant, endpoint.name AS endpoint, count(*) AS count,
           min(last_at) AS oldest, max(last_at) AS newest, min(dead_letter.id) AS first, max(dead_letter.id) AS last
    FROM dead_letter LEFT JOIN endpoint ON endpoint.id = dead_letter.endpoint_id
    WHERE {chosen} GROUP BY 1, 2, 3, 4 ORDER BY count DESC, 1, 2, 3, 4"""
COUNT = text(_COUNT.format(chosen=CHOSEN))


# Queries the dead letters, which outlive the tenants and endpoints that they name, and may name a tenant that never existed.
NAMED = text("""
    SELECT EXISTS (
      SELECT FROM dead_letter
      WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
        AND (CAST(:endpoint_ids AS int[]) IS NULL OR endpoint_id = ANY(CAST(:endpoint_ids AS int[]))))""")

# Removed ones too.
ENDPOINT_IDS = text("SELECT id FROM endpoint WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Group:
    """The dead letters of one stage, reason, tenant and endpoint, with the range of their ids."""

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
    return conn.execute(DEAD_LETTERS, {**conditions(conn, wanted), "before": before, "limit": limit}).mappings().all()


def dead_letter(conn: Connection, id_: int, tenant: str | None = None) -> Row | None:
    """One dead letter with all its columns; None when it does not exist, or is not of this tenant."""
    return conn.execute(DEAD_LETTER, {"id": id_, "tenant": tenant}).mappings().one_or_none()


def are_there(conn: Connection, tenant: str | None, endpoint: str | None = None) -> bool:
    """Whether any dead letter, open or not, names this tenant and this endpoint; None matches any."""
    return bool(conn.execute(NAMED, {"tenant": tenant, "endpoint_ids": _ids(conn, endpoint)}).scalar_one())


def count(conn: Connection, wanted: DeadLetterFilter) -> list[Group]:
    """The selected dead letters in groups, the largest first."""
    return [Group(*row) for row in conn.execute(COUNT, conditions(conn, wanted))]


def conditions(conn: Connection, wanted: DeadLetterFilter) -> dict[str, Any]:
    """The parameters of `CHOSEN`."""
    return {**asdict(wanted), "endpoint_ids": _ids(conn, wanted.endpoint)}


def _ids(conn: Connection, endpoint: str | None) -> list[int] | None:
    return None if endpoint is None else list(conn.execute(ENDPOINT_IDS, {"name": endpoint}).scalars())
