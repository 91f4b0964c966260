"""What `bench claims` claims from: a database of its own with so many delivered rows, and twenty endpoints with due ones.

The rows have the shape, the keys and the indexes that the route gives them, and satisfy the table's constraints. VACUUM
leaves statistics and visibility as autovacuum does; autovacuum is off while claims are timed, so that it disturbs neither of
two tables.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Connection, Engine, TextClause, make_url, text

from ops.bench.load import BODY_BYTES
from ops.migrate import migrate
from ops.runtime.db import make_engine, transaction
from pipeline.claim import Lease, claim_anything
from pipeline.store.deliveries import claims, endpoint_health, settling
from pipeline.store.round_trip import compiled
from schemas.delivery import Claim, Receipt, Settlement

ENDPOINTS: Final = 20
SUBJECTS: Final = 1_000_000  # many chains: neighbours in time are far apart in the index by chain
CLAIM: Final = 500  # deliveries in one claim, as the relay asks for
LEASE: Final = timedelta(seconds=90)
CHUNK: Final = 250_000  # rows in one transaction of the filling

_ENDPOINTS = text("""
    WITH made AS (INSERT INTO tenant (name, fingerprint_key) VALUES ('bench', '') RETURNING id)
    INSERT INTO endpoint (tenant_id, name, url, settings)
    SELECT made.id, 'e' || n, 'http://127.0.0.1/', CASE WHEN n = 0 THEN '{"rate_limit": 1000000}' ELSE '{}' END :: jsonb
    FROM made, generate_series(0, :count - 1) AS n RETURNING id""")

# The n-th event is the next of one of the subjects, and for one of the endpoints.
_ROWS = """
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, attempts, created_at, next_attempt_at, settled_at)
    SELECT (CAST(:endpoints AS int[]))[1 + n % cardinality(CAST(:endpoints AS int[]))], 'bench',
           CAST(md5(CAST(n % :subjects AS text)) AS uuid), n / :subjects, :size, {rest}
    FROM generate_series(CAST(:first AS bigint), :last - 1) AS n"""
_DELIVERED = text(_ROWS.format(rest="'delivered', 1, now() - interval '1 h', NULL, now()"))

# One half was never tried, the other is to be tried again, so that both lanes are claimed from. A thousand share a due time,
# like the deliveries of one batch of the ingest worker.
_DUE = text(
    _ROWS.format(rest="'pending', (n / 20) % 2, now(), now() - interval '1 h' + (n - :first) / 1000 * interval '1 ms', NULL")
)

_SIZES = text("""
    SELECT pg_relation_size('delivery'), pg_indexes_size('delivery'),
           (SELECT count(*) FROM delivery WHERE state = 'delivered')""")

_NAMES = {
    compiled(statement): name.lower()
    for module in (claims, endpoint_health)
    for name, statement in vars(module).items()
    if isinstance(statement, TextClause)
}


class Table:
    """One database with `delivered` rows that are never claimed again."""

    def __init__(self, server_url: str, name: str, delivered: int) -> None:
        """Made, migrated, filled and vacuumed when this returns."""
        with _owner(server_url) as conn:
            conn.execute(text(f"CREATE DATABASE {name}"))
        url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
        migrate(url)
        self.engine: Engine = make_engine(url, pool_size=2, statement_timeout=600.0)
        self.delivered = delivered
        self._url = url
        self._planned = 0
        with transaction(self.engine) as conn:
            self._endpoints: Sequence[int] = conn.execute(_ENDPOINTS, {"count": ENDPOINTS}).scalars().all()
        self._maintain("ALTER TABLE delivery SET (autovacuum_enabled = off)")
        self._insert(_DELIVERED, delivered)
        self._maintain("VACUUM (ANALYZE)", "CHECKPOINT")

    def plan(self, count: int) -> None:
        """Add `count` deliveries that are due."""
        self._insert(_DUE, count)

    def claim(self) -> tuple[float, UUID, Sequence[Claim]]:
        """Claim once as the relay does, from BEGIN to COMMIT; gives the seconds, the lease and the claimed deliveries."""
        now = datetime.now(UTC)
        lease = Lease(uuid4(), now, now + LEASE)
        began = time.perf_counter()
        with transaction(self.engine) as conn:
            found = claim_anything(conn, lease, CLAIM)
        return time.perf_counter() - began, lease.id, found

    def settle(self, lease: UUID, claimed: Sequence[Claim]) -> None:
        """Settle the claimed deliveries as delivered: their rows move through the indexes as in production."""
        receipt = Receipt(datetime.now(UTC), 0.001, status=200)
        tried = [(lease, Settlement(each.id, 2, "delivered", receipt, None)) for each in claimed]
        with transaction(self.engine) as conn:
            settling.settle(conn, tried, datetime.now(UTC))

    def plans(self) -> dict[str, list[str]]:
        """The executed plan of each statement of a claim, in their order. Their writes are rolled back."""
        with self.engine.connect() as conn:
            with _noted(conn) as ran:
                now = datetime.now(UTC)
                claim_anything(conn, Lease(uuid4(), now, now + LEASE), CLAIM)
            conn.rollback()
            found: dict[str, list[str]] = {}
            for name, statement, parameters in ran:
                found.setdefault(name, _explained(conn, statement, parameters))
            conn.rollback()
        return found

    def sizes(self) -> dict[str, float]:
        """The sizes of the table and its indexes, in MiB, and the number of its delivered rows."""
        with transaction(self.engine) as conn:
            table, indexes, delivered = conn.execute(_SIZES).one()
        return {"table_mib": round(table / 2**20, 1), "indexes_mib": round(indexes / 2**20, 1), "delivered": delivered}

    def _insert(self, statement: TextClause, count: int) -> None:
        end = self._planned + count
        asked = {"endpoints": list(self._endpoints), "subjects": SUBJECTS, "size": BODY_BYTES}
        for first in range(self._planned, end, CHUNK):
            with transaction(self.engine) as conn:
                conn.execute(statement, {**asked, "first": first, "last": min(first + CHUNK, end)})
        self._planned = end

    def _maintain(self, *statements: str) -> None:
        with _owner(self._url) as conn:
            for statement in statements:
                conn.execute(text(statement))


@contextmanager
def _owner(url: str) -> Iterator[Connection]:
    """A connection for statements that cannot run in a transaction."""
    engine = make_engine(url, pool_size=1, statement_timeout=600.0)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            yield conn
    finally:
        engine.dispose()


@contextmanager
def _noted(conn: Connection) -> Iterator[list[tuple[str, str, Any]]]:
    """Record the statements of the connection while the block runs: each one's name, text and parameters."""
    ran: list[tuple[str, str, Any]] = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
            ran.append((_NAMES.get(query, query), query, params))
            return super().execute(query, params, **options)

    driver = conn.connection.driver_connection
    assert driver is not None
    before, driver.cursor_factory = driver.cursor_factory, Noting
    try:
        yield ran
    finally:
        driver.cursor_factory = before


def _explained(conn: Connection, statement: str, parameters: Any) -> list[str]:
    if statement.startswith("SET"):
        return ["a setting, without a plan"]
    return list(conn.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF) {statement}", parameters).scalars())
