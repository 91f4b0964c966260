"""Statements on references to blobs."""

from collections.abc import Collection, Iterator

from sqlalchemy import Connection, text

# Uses two indexes that hold only references. Content whose entry is missing counts for every tenant.
REFERRED = text("""
    SELECT entry.tenant, blob FROM content LEFT JOIN entry ON entry.chain_id = content.chain_id AND entry.seq = content.seq
    WHERE blob IS NOT NULL AND blob = ANY(CAST(:references AS text[]))
    UNION SELECT tenant, blob FROM dead_letter WHERE blob IS NOT NULL AND blob = ANY(CAST(:references AS text[]))""")

EVERY = text("""
    SELECT entry.tenant, blob FROM content JOIN entry ON entry.chain_id = content.chain_id AND entry.seq = content.seq
    WHERE blob IS NOT NULL
    UNION SELECT tenant, blob FROM dead_letter WHERE blob IS NOT NULL AND tenant IS NOT NULL""")


def referred(conn: Connection, references: Collection[str]) -> set[tuple[str | None, str]]:
    """Those of the references that an entry or a dead letter holds, each with its tenant; None stands for any tenant."""
    return {(tenant, blob) for tenant, blob in conn.execute(REFERRED, {"references": list(references)})}


def every(conn: Connection) -> Iterator[tuple[str, str]]:
    """Each tenant and reference that its entries and dead letters hold, once."""
    return ((tenant, blob) for tenant, blob in conn.execute(EVERY))
