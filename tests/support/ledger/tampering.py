"""Ways to change the ledger as a superuser who has switched off everything that guards it."""

from sqlalchemy import Connection

#: Removes all of Postgres' own protection against edits, so that only the verifier is left.
UNPROTECTED = """
    SET LOCAL session_replication_role = replica;
    ALTER TABLE entry DISABLE TRIGGER ALL;
    ALTER TABLE content DISABLE TRIGGER ALL;
    ALTER TABLE chain DISABLE TRIGGER ALL;
    DO $$ DECLARE found record; BEGIN
      FOR found IN SELECT conrelid::regclass AS owner, conname FROM pg_constraint
                   WHERE conrelid IN ('entry'::regclass, 'content'::regclass, 'chain'::regclass) AND contype <> 'n'
                   ORDER BY contype = 'f' DESC LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', found.owner, found.conname);
      END LOOP;
      FOR found IN SELECT attrelid::regclass AS owner, attname FROM pg_attribute WHERE attnotnull AND attnum > 0
                   AND attrelid IN ('entry'::regclass, 'content'::regclass, 'chain'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s ALTER %I DROP NOT NULL', found.owner, found.attname);
      END LOOP;
    END $$"""

#: The right hash of what the columns say.
REHASHED = r"sha256('\x00'::bytea || entry_envelope(chain_id, seq, prev_hash, tenant, at, kind, pc))"


def run(conn: Connection, statement: str) -> int:
    """Runs a statement as it is, directly on psycopg; returns how many rows it changed."""
    driver = conn.connection.driver_connection
    assert driver is not None
    return driver.execute(statement).rowcount


def of(subject: str = "order-1", tenant: str = "acme", seq: int | None = 1) -> str:
    """The condition for one entry, valid in each of the tables."""
    chain = f"chain_id = (SELECT chain_id FROM chain WHERE tenant = '{tenant}' AND subject = '{subject}')"
    return chain if seq is None else f"{chain} AND seq = {seq}"
