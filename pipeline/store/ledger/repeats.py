"""Statements that find what must be there only once, whatever indexes there are: they read the tables, not the indexes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, text

from pipeline.store.ledger.scan import Scope, within
from schemas.ledger.fault import FaultKind

# An index may lack rows that were added while it was marked as not in use. A sort that needs more memory goes on on disk.
READ_TABLES = text("""
    SELECT set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true),
           set_config('enable_bitmapscan', 'off', true), set_config('work_mem', '32MB', true)""")
AS_BEFORE = text("""
    SELECT set_config(name, reset_val, true) FROM pg_settings
    WHERE name IN ('enable_indexscan', 'enable_indexonlyscan', 'enable_bitmapscan', 'work_mem')""")

FINGERPRINTS = """
    WITH twice AS MATERIALIZED (
      SELECT fingerprint FROM entry {where} AND fingerprint IS NOT NULL GROUP BY fingerprint HAVING count(*) > 1 LIMIT 10000),
    each AS (
      SELECT chain_id, seq, tenant, lag(chain_id) OVER same AS other_chain, lag(seq) OVER same AS other_seq
      FROM entry JOIN twice USING (fingerprint) WINDOW same AS (PARTITION BY fingerprint ORDER BY at, chain_id, seq))
    SELECT uuid_send(each.chain_id), each.seq, each.tenant, chain.subject,
           'the same event is entry ' || other_seq || ' of chain ' || encode(uuid_send(other_chain), 'hex')
    FROM each LEFT JOIN chain ON chain.chain_id = each.chain_id WHERE other_chain IS NOT NULL"""

CHAINS = """
    SELECT uuid_send(chain_id), NULL, tenant, subject,
           'the subject has ' || count || ' chains: ' || left(chains, 200)
    FROM (SELECT chain_id, tenant, subject, count(*) OVER same AS count,
                 string_agg(encode(uuid_send(chain_id), 'hex'), ' ') OVER same AS chains,
                 row_number() OVER (PARTITION BY {one} ORDER BY chain_id) AS number
          FROM chain {where} AND {one_is_there} WINDOW same AS (PARTITION BY {one})) AS each
    WHERE count > 1 AND number > 1"""

#: Each kind, the id by which it is divided into parts, and the statement.
_KINDS: Final[tuple[tuple[FaultKind, str, str], ...]] = (
    ("fingerprint_repeated", "entry.fingerprint", FINGERPRINTS),
    ("chain_repeated", "chain.key", CHAINS.replace("{one}", "key").replace("{one_is_there}", "key IS NOT NULL")),
    (
        "chain_repeated",
        "CAST(md5(chain.tenant || ' ' || chain.subject) AS uuid)",
        CHAINS.replace("{one}", "tenant, subject").replace("{one_is_there}", "subject IS NOT NULL"),
    ),
)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Something that is there a second time. `seq` is None for a chain's row."""

    chain_id: bytes | None
    seq: int | None
    tenant: str | None
    subject: str | None
    detail: str


def found(conn: Connection, scope: Scope) -> Iterator[tuple[FaultKind, Repeated]]:
    """The second and further ones of each kind, within the scope; of 10,000 fingerprints at most.

    A part is one of the fingerprints and keys, not of the chains: what is there twice is in one part. Of a tenant or a subject,
    the indexes are used, or it would take as long as all of the ledger.
    """
    driver = conn.connection.driver_connection
    assert driver is not None
    if scope.tenant is None:
        conn.execute(READ_TABLES)
    told = set()
    for kind, column, statement in _KINDS:
        with driver.cursor() as cursor:
            cursor.execute(statement.format(where=_where(scope, column)), scope.parameters, binary=True)
            for row in cursor:
                if (kind, row[0], row[1]) not in told:
                    told.add((kind, row[0], row[1]))
                    yield kind, Repeated(*row)
    if scope.tenant is None:
        conn.execute(AS_BEFORE)


def _where(scope: Scope, column: str) -> str:
    table = "entry" if column.startswith("entry.") else "chain"
    if scope.part is None:
        return scope.where(table)
    return f"{replace(scope, part=None).where(table)} AND {within(column, scope.part)}"
