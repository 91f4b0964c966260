"""Statements that begin a new incarnation of a tenant's log: by the database's owner, in one transaction."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

# The sequencer's lock on the tenant (`positions.LOCK`), and then every writer: whatever they are about to note as pending comes
# after what this transaction notes.
ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('waxseal log ' || :tenant, 0))")
STILL = text("LOCK TABLE log_pending IN EXCLUSIVE MODE")

NEWEST = text("SELECT id, incarnation, size FROM log WHERE tenant = :tenant ORDER BY incarnation DESC LIMIT 1")

CLOSE = text("UPDATE log SET state = 'closed' WHERE tenant = :tenant AND state = 'open'")
OPEN = text("INSERT INTO log (tenant, incarnation) VALUES (:tenant, :incarnation)")
DROP = text("DELETE FROM log_pending WHERE tenant = :tenant")
FORGET = text("DELETE FROM log_refusal WHERE log_id IN (SELECT id FROM log WHERE tenant = :tenant AND state = 'closed')")

# Every chain by one look-up in the index of entries, so that a chain without its row in `chain` is not left out.
CHAINS = text("""
    WITH RECURSIVE each (chain_id) AS (
      (SELECT chain_id FROM entry ORDER BY chain_id LIMIT 1)
      UNION ALL
      SELECT (SELECT entry.chain_id FROM entry WHERE entry.chain_id > each.chain_id ORDER BY entry.chain_id LIMIT 1)
      FROM each WHERE each.chain_id IS NOT NULL)
    INSERT INTO log_pending (tenant, chain_ids, firsts, counts, entries, at)
    SELECT opening.tenant, ARRAY[each.chain_id], ARRAY[opening.seq], ARRAY[ending.seq - opening.seq + 1],
      ending.seq - opening.seq + 1, opening.at
    FROM each
    CROSS JOIN LATERAL (SELECT tenant, seq, at FROM entry WHERE entry.chain_id = each.chain_id ORDER BY seq LIMIT 1) AS opening
    CROSS JOIN LATERAL (SELECT seq FROM entry WHERE entry.chain_id = each.chain_id ORDER BY seq DESC LIMIT 1) AS ending
    WHERE opening.tenant = :tenant AND each.chain_id <> :but""")

ENTRIES = text("SELECT coalesce(sum(seq + 1), 0) FROM chain WHERE tenant = :tenant")


@dataclass(frozen=True, slots=True)
class Newest:
    """The tenant's newest log, as the database knows it."""

    id: int
    incarnation: int
    size: int


def newest(conn: Connection, tenant: str) -> Newest | None:
    """The tenant's newest log."""
    row = conn.execute(NEWEST, {"tenant": tenant}).one_or_none()
    return None if row is None else Newest(*row)


def entries(conn: Connection, tenant: str) -> int:
    """How many entries the tenant has."""
    return int(conn.execute(ENTRIES, {"tenant": tenant}).scalar_one())


def open_next(conn: Connection, tenant: str, incarnation: int) -> None:
    """Close the tenant's log and open the next. Writers of all tenants wait until the transaction ends."""
    given = {"tenant": tenant}
    conn.execute(ALONE, given)
    conn.execute(STILL)
    for statement in (CLOSE, FORGET, DROP):
        conn.execute(statement, given)
    conn.execute(OPEN, {**given, "incarnation": incarnation})


def note_all(conn: Connection, tenant: str, but: UUID) -> int:
    """Have every entry positioned again, except those of the chain `but`; give the number of chains."""
    return conn.execute(CHAINS, {"tenant": tenant, "but": but}).rowcount
