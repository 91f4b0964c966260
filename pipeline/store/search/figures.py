"""Statements behind the console's first page: what needs somebody, counts that stop at a bound, and figures by the minute.

Each takes the tenant, or null for all of them. The planner removes the conditions whose parameters are null.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text
from sqlalchemy import RowMapping as Row

CAPPED: Final = 10_001  # rows at which a count stops
MOST: Final = 50  # things of one kind that need somebody, shown by name

# From the index of due deliveries, the front of each lane.
_OLDEST_DUE: Final = """
      SELECT min(front.next_attempt_at) AS oldest FROM (VALUES (0), (1)) AS lanes (lane) CROSS JOIN LATERAL (
        SELECT next_attempt_at FROM delivery
        WHERE endpoint_id = endpoint.id AND lane = lanes.lane AND delivery.state = 'pending' AND next_attempt_at IS NOT NULL
        ORDER BY next_attempt_at LIMIT 1) AS front"""

ENDPOINTS = text(f"""
    SELECT tenant.name AS tenant, endpoint.name, endpoint.state, endpoint.reason, coalesce(breaker, 'closed') AS breaker,
      coalesce(forced, false) AS forced, opened_at, last_error, due.oldest,
      CASE WHEN endpoint.state = 'disabled' THEN (
        SELECT at FROM operator_event WHERE endpoint_id = endpoint.id AND kind = 'endpoint_disabled'
        ORDER BY operator_event.at DESC LIMIT 1) END AS disabled_at
    FROM endpoint JOIN tenant ON tenant.id = tenant_id LEFT JOIN endpoint_health ON endpoint_health.endpoint_id = endpoint.id
    CROSS JOIN LATERAL ({_OLDEST_DUE}) AS due
    WHERE endpoint.state <> 'removed' AND (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant)
      AND (endpoint.state = 'disabled' OR breaker <> 'closed' OR due.oldest < :late)
    ORDER BY endpoint.state = 'disabled' DESC, coalesce(breaker, 'closed') <> 'closed' DESC, due.oldest, 1, 2
    LIMIT {MOST}""")  # noqa: S608 - constants

MAILBOXES = text(f"""
    SELECT tenant.name AS tenant, source.name, state, reason, state_at
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id
    WHERE state = 'needs_reauthorization' AND (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant)
    ORDER BY state_at LIMIT {MOST}""")  # noqa: S608 - a constant

CLAIMS = text("""
    SELECT tenant, missing, checked_at FROM claim
    WHERE word = 'none' AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant) ORDER BY tenant LIMIT 50""")
REFUSALS = text("""
    SELECT tenant, kind, detail, since FROM log_refusal JOIN log ON log.id = log_id
    WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant ORDER BY since LIMIT 50""")
ASIDE = text("""
    SELECT tenant, count(*) AS n, min(since) AS since, min(fault) AS fault FROM chain_aside
    WHERE mended_at IS NULL AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant) GROUP BY tenant ORDER BY 3 LIMIT 50""")

# In microseconds, of what has waited longest for its position; by tenant, the oldest by its id.
UNSEQUENCED = text("""
    SELECT min(earliest.at) FROM (
      SELECT name FROM tenant WHERE CAST(:tenant AS text) IS NULL OR name = :tenant) AS tenant
    CROSS JOIN LATERAL (
      SELECT at FROM log_pending WHERE log_pending.tenant = tenant.name ORDER BY log_pending.tenant, id LIMIT 1) AS earliest""")

INDEX = text("""
    SELECT coalesce(sum(log.size), 0) AS size, coalesce(sum(log.size - coalesce(progress.position, 0)), 0) AS behind,
      min(progress.at) FILTER (WHERE log.size > coalesce(progress.position, 0)) AS reached,
      max(progress.at) AS newest
    FROM log LEFT JOIN search_progress AS progress ON progress.log_id = log.id
    WHERE log.state = 'open' AND (CAST(:tenant AS text) IS NULL OR log.tenant = :tenant)""")

# Each stops at the bound, endpoint by endpoint along the index of only the deliveries in that state.
_IN_STATE: Final = """
    SELECT count(*) FROM (
      SELECT FROM endpoint JOIN tenant ON tenant.id = tenant_id CROSS JOIN LATERAL (
        SELECT FROM delivery WHERE endpoint_id = endpoint.id AND delivery.state = '{state}' LIMIT :most) AS each
      WHERE CAST(:tenant AS text) IS NULL OR tenant.name = :tenant LIMIT :most) AS counted"""
COUNTS: Final[Mapping[str, TextClause]] = {
    **{state: text(_IN_STATE.format(state=state)) for state in ("pending", "leased", "paused")},
    "dead_letters": text("""
    SELECT count(*) FROM (
      SELECT FROM dead_letter WHERE state = 'open' AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant) LIMIT :most
    ) AS counted"""),
}

OLDEST_DUE = text(f"""
    SELECT min(due.oldest) FROM endpoint JOIN tenant ON tenant.id = tenant_id CROSS JOIN LATERAL ({_OLDEST_DUE}) AS due
    WHERE endpoint.state = 'active' AND (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant)""")  # noqa: S608 - a constant
OLDEST_DEAD = text("""
    SELECT last_at FROM dead_letter WHERE state = 'open' AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    ORDER BY last_at LIMIT 1""")

ACCEPTED = text("""
    SELECT minute, CAST(sum(n) AS bigint) AS n FROM accepted_minute JOIN log ON log.id = log_id
    WHERE minute >= :since AND log.state = 'open' AND (CAST(:tenant AS text) IS NULL OR log.tenant = :tenant)
    GROUP BY minute""")
TRIED = text("""
    SELECT minute, CAST(coalesce(sum(n) FILTER (WHERE outcome = 'delivered'), 0) AS bigint) AS delivered,
      CAST(coalesce(sum(n) FILTER (WHERE outcome <> 'delivered'), 0) AS bigint) AS failed
    FROM stat_minute JOIN endpoint ON endpoint.id = endpoint_id JOIN tenant ON tenant.id = tenant_id
    WHERE minute >= :since AND (CAST(:tenant AS text) IS NULL OR tenant.name = :tenant) GROUP BY minute""")

ENDPOINT = text("""
    SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id
    WHERE tenant.name = :tenant AND endpoint.name = :name""")
OF_ENDPOINT = text("""
    SELECT minute, outcome, n, seconds, buckets FROM stat_minute
    WHERE endpoint_id = :endpoint AND minute >= :since ORDER BY minute""")


def count(conn: Connection, what: str, tenant: str | None) -> int:
    """How many there are: `pending`, `leased` and `paused` deliveries, `dead_letters` that are open; `CAPPED` at most."""
    return int(conn.execute(COUNTS[what], {"tenant": tenant, "most": CAPPED}).scalar_one())


def listed(conn: Connection, statement: TextClause, tenant: str | None, **given: Any) -> Sequence[Row]:
    """The rows of one of the statements above."""
    return conn.execute(statement, {"tenant": tenant, **given}).mappings().all()


def moment(conn: Connection, statement: TextClause, tenant: str | None) -> Any:
    """The one value of one of the statements above."""
    return conn.execute(statement, {"tenant": tenant}).scalar()


def of_endpoint(conn: Connection, tenant: str, name: str, since: datetime) -> Sequence[Row] | None:
    """The figures of an endpoint by minute and outcome; None if the tenant has no such endpoint."""
    endpoint: int | None = conn.execute(ENDPOINT, {"tenant": tenant, "name": name}).scalar()
    if endpoint is None:
        return None
    return conn.execute(OF_ENDPOINT, {"endpoint": endpoint, "since": since}).mappings().all()
