"""Statements that delete the copy that a tenant left behind: chain by chain, so that each that is left verifies.

First goes the log, whose leaves are then of no log any more, then the chains, last the configuration. Only the owner of the
database may, and only for a tenant whose move is `finishing` (`refuse`, the trigger on the tables of the ledger).
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.config import configure

FINISH = text("SELECT set_config('waxseal.finishing', CAST(:id AS text), true), set_config('statement_timeout', '0', true)")

_LOGS: Final = "(SELECT id FROM log WHERE tenant = :tenant)"
_MAILBOXES: Final = """(SELECT mailbox.id FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = tenant_id
                        WHERE tenant.name = :tenant)"""
_ENDPOINTS: Final = "(SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant)"

#: In this order, because some refer to others.
LOG = tuple(
    text(statement)
    for statement in (
        *(f"DELETE FROM {table} WHERE log_id IN {_LOGS}" for table in ("anchor", "checkpoint", "log_key", "log_refusal")),  # noqa: S608
        *(f"DELETE FROM {table} WHERE log_id IN {_LOGS}" for table in ("search_progress", "accepted_minute")),  # noqa: S608
        "DELETE FROM log_pending WHERE tenant = :tenant",
        "DELETE FROM log WHERE tenant = :tenant",
    )
)

# Chains of altogether `most` entries, and one at least.
CHAINS = text("""
    SELECT chain_id FROM (
      SELECT chain_id, sum(seq + 1) OVER (ORDER BY key) - (seq + 1) AS before FROM (
        SELECT key, chain_id, seq FROM chain WHERE tenant = :tenant ORDER BY key LIMIT :most) AS next) AS summed
    WHERE before < :most""")

# The console's indexer holds the lock alone while it copies deliveries: it has copied them before, or finds them gone.
NO_INDEXING = text("SELECT pg_advisory_xact_lock_shared(24852988478448748)")

# Open ones and others have an index each; without the look-ups of both, every piece would read all dead letters.
LETTERS_OF_DELIVERIES = text("""
    DELETE FROM dead_letter WHERE id = ANY (ARRAY(
      SELECT letter.id FROM delivery CROSS JOIN LATERAL (
        SELECT id FROM dead_letter WHERE delivery_id = delivery.id AND state = 'open' UNION ALL
        SELECT id FROM dead_letter WHERE delivery_id = delivery.id AND state <> 'open' OFFSET 0) AS letter
      WHERE delivery.chain_id = ANY(:chains)))""")
ATTEMPTS = text("DELETE FROM attempt WHERE delivery_id = ANY(ARRAY(SELECT id FROM delivery WHERE chain_id = ANY(:chains)))")
DELIVERIES = text("""
    WITH gone AS (DELETE FROM delivery WHERE chain_id = ANY(:chains) RETURNING id, endpoint_id)
    DELETE FROM delivery_search AS copied USING gone WHERE copied.endpoint_id = gone.endpoint_id AND copied.id = gone.id""")

# What their bodies have in the blob store is deleted by the eraser, when nothing refers to it any more.
BLOBS = text("""
    INSERT INTO erased_blob (tenant, reference, erased_at)
    SELECT DISTINCT :tenant, blob, now() FROM content WHERE chain_id = ANY(:chains) AND blob IS NOT NULL
    ON CONFLICT (tenant, reference) DO UPDATE SET erased_at = excluded.erased_at""")

OF_CHAINS = tuple(
    text(f"DELETE FROM {table} WHERE chain_id = ANY(:chains)")  # noqa: S608 - constants
    for table in ("content", "leaf", "subject_search", "verified_point", "chain_aside", "entry", "chain")
)

LETTERS = text("""
    WITH gone AS (
      DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter WHERE tenant = :tenant LIMIT :most) RETURNING blob),
    noted AS (
      INSERT INTO erased_blob (tenant, reference, erased_at)
      SELECT DISTINCT CAST(:tenant AS text), blob, now() FROM gone WHERE :blobs AND blob IS NOT NULL
      ON CONFLICT (tenant, reference) DO UPDATE SET erased_at = excluded.erased_at)
    SELECT count(*) FROM gone""")
ITEMS = text(f"""
    DELETE FROM mail_item WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM mail_item WHERE mailbox_id IN {_MAILBOXES} LIMIT :most))""")  # noqa: S608 - constants

CONFIGURATION = tuple(
    text(statement)
    for statement in (
        f"DELETE FROM past_delivery WHERE endpoint_id IN {_ENDPOINTS}",  # noqa: S608 - constants
        f"DELETE FROM stat_minute WHERE endpoint_id IN {_ENDPOINTS}",  # noqa: S608 - constants
        "DELETE FROM source USING tenant WHERE tenant.id = tenant_id AND tenant.name = :tenant",
        "DELETE FROM console_session USING access_token WHERE token_id = access_token.id AND access_token.tenant = :tenant",
        "DELETE FROM access_token WHERE tenant = :tenant",
        "DELETE FROM retention_progress WHERE tenant = :tenant",
        "DELETE FROM claim WHERE tenant = :tenant",
        "DELETE FROM tenant_history WHERE tenant = :tenant",
    )
)


def as_finishing(conn: Connection, move: UUID) -> None:
    """Let this transaction delete what the move left behind. Only the database's owner may."""
    conn.execute(FINISH, {"id": move})


def remove_log(conn: Connection, tenant: str) -> None:
    """Deletes the tenant's logs, their checkpoints and keys; their leaves go with the entries."""
    for statement in LOG:
        conn.execute(statement, {"tenant": tenant})


def remove_chains(conn: Connection, tenant: str, most: int, *, blobs: bool) -> int:
    """Deletes chains of about `most` entries with all that belongs to them; gives how many chains, 0 when there are none.

    `blobs`: their bodies in the blob store, too.
    """
    chains: Sequence[UUID] = conn.execute(CHAINS, {"tenant": tenant, "most": most}).scalars().all()
    if chains:
        given = {"chains": list(chains)}
        conn.execute(NO_INDEXING)
        for statement in (LETTERS_OF_DELIVERIES, ATTEMPTS, DELIVERIES):
            conn.execute(statement, given)
        if blobs:
            conn.execute(BLOBS, {**given, "tenant": tenant})
        for statement in OF_CHAINS:
            conn.execute(statement, given)
    return len(chains)


def remove_rest(conn: Connection, tenant: str, most: int, *, blobs: bool) -> int:
    """Deletes at most `most` dead letters and items of mailboxes; gives how many, 0 when there are none."""
    letters = conn.execute(LETTERS, {"tenant": tenant, "most": most, "blobs": blobs}).scalar_one()
    return int(letters) + conn.execute(ITEMS, {"tenant": tenant, "most": most}).rowcount


def remove_tenant(conn: Connection, tenant: str) -> None:
    """Deletes the tenant itself, of which nothing else is left, with its configuration."""
    for statement in CONFIGURATION:
        conn.execute(statement, {"tenant": tenant})
    configure.delete_tenant(conn, tenant)
