"""Statements that bring what was settled before a tenant moved into its new cell: deliveries with their attempts, dead letters.

They come after the tenant, in pieces, by the ids of the cell that it left; how far they have come is written with each piece.
What that cell gave up when the tenant left is not among it: the new cell has it under its own ids. Closed dead letters come
without their bodies: what was erased in the new cell meanwhile must not come after it.
"""

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.moving.arrival import MAKE_DAYS, columns
from pipeline.store.moving.ledger_copy import pump
from pipeline.store.moving.moves import MOVED_ON

REACHED = text("SELECT move, deliveries, letters, whole FROM tenant_history WHERE tenant = :tenant")
BEGIN = text("""
    INSERT INTO tenant_history (tenant, move) VALUES (:tenant, :move)
    ON CONFLICT (tenant) DO UPDATE SET move = :move, deliveries = 0, letters = 0, whole = false""")
REACH = text("""
    UPDATE tenant_history SET deliveries = :deliveries, letters = :letters, whole = :whole WHERE tenant = :tenant""")
FORGET = text("DELETE FROM tenant_history WHERE tenant = :tenant")

_ENDPOINTS: Final = """
    SELECT endpoint.id, endpoint.name FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = %(tenant)s"""
MAP = text("""
    CREATE TEMPORARY TABLE endpoint_now ON COMMIT DROP AS
    SELECT was.id AS was, endpoint.id AS now FROM endpoint_was AS was
    JOIN endpoint ON endpoint.name = was.name AND endpoint.tenant_id = (SELECT id FROM tenant WHERE name = :tenant)""")

_SETTLED: Final = """state IN ('delivered', 'discarded') AND error IS DISTINCT FROM %(moved_on)s AND id > %(after)s
    AND endpoint_id IN (SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = %(tenant)s)
    ORDER BY id LIMIT %(most)s"""
_CLOSED: Final = """tenant = %(tenant)s AND state <> 'open' AND detail <> %(moved_on)s AND id > %(after)s
    ORDER BY id LIMIT %(most)s"""

PUT_DELIVERIES: Final = """
    INSERT INTO delivery ({names}, endpoint_id) SELECT {values}, endpoint_now.now FROM moved_delivery AS moved
    JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id ON CONFLICT (chain_id, seq, endpoint_id) DO NOTHING"""
DELIVERIES_NOW = text("""
    CREATE TEMPORARY TABLE delivery_now ON COMMIT DROP AS
    SELECT moved.id AS was, delivery.id AS now
    FROM moved_delivery AS moved JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id
    JOIN delivery ON (delivery.chain_id, delivery.seq, delivery.endpoint_id) = (moved.chain_id, moved.seq, endpoint_now.now)""")
PUT_ATTEMPTS: Final = """
    INSERT INTO attempt (delivery_id, {names}) SELECT delivery_now.now, {values} FROM moved_attempt AS moved
    JOIN delivery_now ON delivery_now.was = moved.delivery_id"""
PUT_LETTERS: Final = """
    INSERT INTO dead_letter (endpoint_id, delivery_id, {names}) SELECT endpoint_now.now, delivery_now.now, {values}
    FROM moved_dead_letter AS moved LEFT JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id
    LEFT JOIN delivery_now ON delivery_now.was = moved.delivery_id
    WHERE moved.delivery_id IS NULL OR delivery_now.now IS NOT NULL"""


class Reached(NamedTuple):
    """How far the history has come, by the ids of the cell that the tenant left."""

    move: UUID
    deliveries: int = 0
    letters: int = 0
    whole: bool = False


def reached(conn: Connection, tenant: str, move: UUID) -> Reached:
    """How far it has come by this move."""
    row = conn.execute(REACHED, {"tenant": tenant}).one_or_none()
    return Reached(*row) if row is not None and row.move == move else Reached(move)


def forget(conn: Connection, tenant: str) -> None:
    """Forget how far a history had come."""
    conn.execute(FORGET, {"tenant": tenant})


def bring_next(source: Connection, target: Connection, tenant: str, move: UUID, most: int) -> tuple[Reached, int]:
    """Copies the next piece within the target's transaction; gives how far the history is then, and how many rows came.

    First all deliveries, in pieces of at most `most`, then the dead letters, which refer to them.
    """
    at = reached(target, tenant, move)
    if not (at.deliveries or at.letters):
        target.execute(BEGIN, {"tenant": tenant, "move": move})
    given: dict[str, object] = {"tenant": tenant, "most": most, "moved_on": MOVED_ON}
    _map_endpoints(source, target, tenant)
    rows, last = _deliveries(source, target, {**given, "after": at.deliveries})
    if rows:
        at = at._replace(deliveries=last)
    else:
        rows, last = _letters(source, target, {**given, "after": at.letters})
        at = at._replace(letters=last) if rows else at._replace(whole=True)
    target.execute(REACH, {"tenant": tenant, **at._asdict()})
    return at, rows


def _map_endpoints(source: Connection, target: Connection, tenant: str) -> None:
    target.execute(text("CREATE TEMPORARY TABLE endpoint_was (id int, name text) ON COMMIT DROP"))
    pump(source, target, _ENDPOINTS, "endpoint_was (id, name)", {"tenant": tenant})
    target.execute(MAP, {"tenant": tenant})


def _deliveries(source: Connection, target: Connection, given: dict[str, object]) -> tuple[int, int]:
    rows, last = _moved(source, target, "delivery", _SETTLED, given)
    if rows:
        _put(target, PUT_DELIVERIES, "delivery", "id", "endpoint_id")
        target.execute(DELIVERIES_NOW)
        ids = list(target.execute(text("SELECT was FROM delivery_now")).scalars())
        _moved(source, target, "attempt", "delivery_id = ANY(%(ids)s)", {"ids": ids})
        target.execute(MAKE_DAYS)
        _put(target, PUT_ATTEMPTS, "attempt", "delivery_id")
    return rows, last


def _letters(source: Connection, target: Connection, given: dict[str, object]) -> tuple[int, int]:
    rows, last = _moved(source, target, "dead_letter", _CLOSED, given)
    if rows:
        ids = target.execute(text("SELECT delivery_id FROM moved_dead_letter WHERE delivery_id IS NOT NULL")).scalars()
        _moved(source, target, "delivery", "id = ANY(%(ids)s)", {"ids": list(ids)})
        target.execute(DELIVERIES_NOW)
        _put(target, PUT_LETTERS, "dead_letter", "id", "endpoint_id", "delivery_id", "body", "blob", "headers")
    return rows, last


def _moved(source: Connection, target: Connection, table: str, which: str, given: dict[str, object]) -> tuple[int, int]:
    """Copies rows into a temporary table; gives how many, and the last id."""
    names = ", ".join(columns(target, table))
    target.execute(text(f"DROP TABLE IF EXISTS moved_{table}"))
    target.execute(text(f"CREATE TEMPORARY TABLE moved_{table} (LIKE {table}) ON COMMIT DROP"))
    if table == "delivery":
        target.execute(text("ALTER TABLE moved_delivery ALTER lane DROP NOT NULL"))
    rows = pump(source, target, f"SELECT {names} FROM {table} WHERE {which}", f"moved_{table} ({names})", given)  # noqa: S608
    if table == "attempt":
        return rows, 0
    return rows, int(target.execute(text(f"SELECT coalesce(max(id), 0) FROM moved_{table}")).scalar_one())  # noqa: S608


def _put(conn: Connection, statement: str, table: str, *without: str) -> None:
    names = [name for name in columns(conn, table) if name not in without]
    conn.execute(text(statement.format(names=", ".join(names), values=", ".join(f"moved.{name}" for name in names))))
