"""Statements that answer operators' questions: what is recorded, and what was delivered. None of them locks or writes."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

from pipeline.store.ledger.scan import INLINE

# A login does not prove that the server answers: a pooler accepts it without the server.
ANSWER = text("SELECT 1")

# The pipe that the output goes to may stay full for any time.
# Of a scan in pages, the planner sees the cost of all: compiling it takes longer than most of them.
BE_PATIENT = text("SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('jit', 'off', true)")

TENANTS = text("SELECT name, fingerprint_key FROM tenant ORDER BY name")

IS_RECORDED = text("SELECT EXISTS (SELECT FROM chain WHERE tenant = :tenant)")

ENDPOINTS = text("""
    SELECT endpoint.name, endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant""")

ALL_ENDPOINTS = text("SELECT DISTINCT name FROM endpoint ORDER BY name")

# By key, if it is known; else by tenant and subject, of which the index has a digest.
CHAIN_BY_KEY = text("SELECT chain_id FROM chain WHERE key = CAST(:key AS uuid)")
CHAIN_BY_WORDS = text("""
    SELECT chain_id FROM chain
    WHERE tenant = :tenant AND hashtextextended(subject, 0) = hashtextextended(:subject, 0) AND subject = :subject""")

# In pages by number, so that no transaction stays open while the output is read; entries do not change between pages.
TIMELINE = text("""
    SELECT entry.seq, hash, prev_hash, at, kind, attributes, octet_length(body) AS size,
           CASE WHEN octet_length(body) <= :inline THEN body END AS body, blob
    FROM entry
    LEFT JOIN content ON content.chain_id = entry.chain_id AND content.seq = entry.seq
    WHERE entry.chain_id = :chain_id AND entry.seq > :after ORDER BY entry.seq LIMIT :limit""")

# Newest first, in pages by id. The planner removes the conditions whose parameters are null.
DELIVERIES = text("""
    SELECT delivery.id, endpoint.name AS endpoint, chain.subject, delivery.chain_id, delivery.seq, attributes,
           delivery.state, attempts, delivery.created_at, next_attempt_at, settled_at, error
    FROM delivery LEFT JOIN endpoint ON endpoint.id = endpoint_id LEFT JOIN chain ON chain.chain_id = delivery.chain_id
    LEFT JOIN content ON content.chain_id = delivery.chain_id AND content.seq = delivery.seq
    WHERE delivery.tenant = :tenant AND delivery.id < :before
      AND (CAST(:state AS text) IS NULL OR delivery.state = :state)
      AND (CAST(:endpoint_id AS int) IS NULL OR endpoint_id = :endpoint_id)
    ORDER BY delivery.id DESC LIMIT :limit""")

ATTEMPTS = text("""
    SELECT delivery_id, n, started_at, seconds, outcome, status, error, detail, response,
           address, reused, dns, connect, tls, first_byte FROM attempt
    WHERE delivery_id = ANY(CAST(:ids AS bigint[])) ORDER BY delivery_id, started_at, n""")


def answered(conn: Connection) -> None:
    """Returns once the server has answered a statement."""
    conn.execute(ANSWER)


def be_patient(conn: Connection) -> None:
    """Lets this transaction stay idle for as long as its output takes to be read, and compiles no statement."""
    conn.execute(BE_PATIENT)


def tenants(conn: Connection) -> dict[str, bytes]:
    """The tenants' fingerprint keys, encrypted, by name."""
    return {row.name: row.fingerprint_key for row in conn.execute(TENANTS)}


def is_recorded(conn: Connection, tenant: str) -> bool:
    """Whether the ledger holds anything under the tenant's name."""
    return bool(conn.execute(IS_RECORDED, {"tenant": tenant}).scalar())


def endpoints(conn: Connection, tenant: str) -> dict[str, int]:
    """The ids of the tenant's endpoints by name, removed ones too."""
    return {row.name: row.id for row in conn.execute(ENDPOINTS, {"tenant": tenant})}


def endpoint_names(conn: Connection) -> list[str]:
    """The names of all tenants' endpoints, each once, removed ones too."""
    return list(conn.execute(ALL_ENDPOINTS).scalars())


def chain_of(conn: Connection, tenant: str, subject: str, key: bytes | None) -> UUID | None:
    """The chain of a subject, whose chain key is `key`, if known. None when it has no entries."""
    return chain_by_key(conn, key) or chain_by_words(conn, tenant, subject)


def chain_by_key(conn: Connection, key: bytes | None) -> UUID | None:
    """The chain that has this key; None if there is none, or no key."""
    found: UUID | None = None if key is None else conn.execute(CHAIN_BY_KEY, {"key": key.hex()}).scalar()
    return found


def chain_by_words(conn: Connection, tenant: str, subject: str) -> UUID | None:
    """The chain of a subject; looks at all heads of the tenant's chains."""
    found: UUID | None = conn.execute(CHAIN_BY_WORDS, {"tenant": tenant, "subject": subject}).scalar()
    return found


def timeline(conn: Connection, chain_id: UUID, after: int, limit: int, *, bodies: bool = True) -> Sequence[Row]:
    """The `limit` entries of a chain that follow number `after`, without bodies longer than `INLINE` (see `scan.body`)."""
    asked = {"chain_id": chain_id, "after": after, "limit": limit, "inline": INLINE if bodies else -1}
    return conn.execute(TIMELINE, asked).mappings().all()


def deliveries(
    conn: Connection, tenant: str, state: str | None, endpoint_id: int | None, before: int, limit: int
) -> Sequence[Row]:
    """The `limit` newest deliveries with ids below `before`."""
    asked = {"tenant": tenant, "state": state, "endpoint_id": endpoint_id, "before": before, "limit": limit}
    return conn.execute(DELIVERIES, asked).mappings().all()


def attempts(conn: Connection, delivery_ids: Sequence[int]) -> dict[int, list[Row]]:
    """The attempts by delivery, in their order."""
    found: dict[int, list[Row]] = {id_: [] for id_ in delivery_ids}
    for row in conn.execute(ATTEMPTS, {"ids": list(delivery_ids)}).mappings():
        found[row["delivery_id"]].append(row)
    return found
