"""Statements that bring what was before a tenant moved into its new cell: what was settled, and what was told and done.

That is settled deliveries with their attempts, closed dead letters, operator events and the audit.

They come after the tenant, in pieces, by the ids of the cell that it left; how far they have come is written with each piece.
What that cell gave up when the tenant left is not among it: the new cell has it under its own ids. Closed dead letters come
without their bodies: what was erased in the new cell meanwhile must not come after it. Events and acts say in which cell they
were; those that the new cell has from an earlier stay of the tenant do not come twice.
"""

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.moving.arrival import MAKE_DAYS, columns
from pipeline.store.moving.ledger_copy import pump
from pipeline.store.moving.moves import MOVED_ON

REACHED = text("SELECT move, deliveries, letters, events, acts, whole FROM tenant_history WHERE tenant = :tenant")
BEGIN = text("""
    INSERT INTO tenant_history (tenant, move) VALUES (:tenant, :move)
    ON CONFLICT (tenant) DO UPDATE SET move = :move, deliveries = 0, letters = 0, events = 0, acts = 0, whole = false""")
REACH = text("""
    UPDATE tenant_history SET deliveries = :deliveries, letters = :letters, events = :events, acts = :acts, whole = :whole
    WHERE tenant = :tenant""")
FORGET = text("DELETE FROM tenant_history WHERE tenant = :tenant")

_ENDPOINTS: Final = """
    SELECT endpoint.id, endpoint.name FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = %(tenant)s"""
_SOURCES: Final = _ENDPOINTS.replace("endpoint", "source")
MAPS: Final = tuple(
    text(f"""
    CREATE TEMPORARY TABLE {table}_now ON COMMIT DROP AS
    SELECT was.id AS was, {table}.id AS now FROM {table}_was AS was
    JOIN {table} ON {table}.name = was.name AND {table}.tenant_id = (SELECT id FROM tenant WHERE name = :tenant)""")  # noqa: S608
    for table in ("endpoint", "source")
)

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

_EVENTS: Final = "tenant = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(most)s"
_ACTS: Final = "tenant = %(tenant)s AND begun IS NULL AND id > %(after)s ORDER BY id LIMIT %(most)s"

PUT_EVENTS: Final = """
    INSERT INTO operator_event (endpoint_id, source_id, cell, {names})
    SELECT endpoint_now.now, source_now.now, coalesce(moved.cell, :cell), {values}
    FROM moved_operator_event AS moved LEFT JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id
    LEFT JOIN source_now ON source_now.was = moved.source_id
    WHERE NOT EXISTS (SELECT FROM operator_event AS told
      WHERE told.tenant = moved.tenant AND (told.at, told.kind, told.detail) = (moved.at, moved.kind, moved.detail))
    ORDER BY moved.id"""

# An act is known again by when it began.
ACTS_NOW = text("""
    CREATE TEMPORARY TABLE act_now ON COMMIT DROP AS
    SELECT id AS was, nextval(pg_get_serial_sequence('audit', 'id')) AS now FROM (
      SELECT id FROM moved_audit AS moved WHERE NOT EXISTS (SELECT FROM audit AS done
        WHERE done.tenant = moved.tenant AND done.begun IS NULL
          AND (done.at, done.who, done.act, done.filter) = (moved.at, moved.who, moved.act, moved.filter))
      ORDER BY id OFFSET 0) AS new""")
PUT_ACTS: Final = """
    INSERT INTO audit (id, cell, {names}) OVERRIDING SYSTEM VALUE
    SELECT act_now.now, coalesce(moved.cell, :cell), {values}
    FROM moved_audit AS moved JOIN act_now ON act_now.was = moved.id"""
PUT_ENDS: Final = """
    INSERT INTO audit (begun, cell, {names})
    SELECT act_now.now, coalesce(moved.cell, :cell), {values}
    FROM moved_audit AS moved JOIN act_now ON act_now.was = moved.begun"""


class Reached(NamedTuple):
    """How far the history has come, by the ids of the cell that the tenant left."""

    move: UUID
    deliveries: int = 0
    letters: int = 0
    events: int = 0
    acts: int = 0
    whole: bool = False


def reached(conn: Connection, tenant: str, move: UUID) -> Reached:
    """How far it has come by this move."""
    row = conn.execute(REACHED, {"tenant": tenant}).one_or_none()
    return Reached(*row) if row is not None and row.move == move else Reached(move)


def forget(conn: Connection, tenant: str) -> None:
    """Forget how far a history had come."""
    conn.execute(FORGET, {"tenant": tenant})


def bring_next(source: Connection, target: Connection, tenant: str, cell: str, move: UUID, most: int) -> tuple[Reached, int]:
    """Copies the next piece within the target's transaction; gives how far the history is then, and how many rows came.

    First all deliveries, in pieces of at most `most`, then the dead letters, which refer to them, operator events and acts.
    `cell` is the name of the source.
    """
    at, rows = reached(target, tenant, move), 0
    if not (at.deliveries or at.letters or at.events or at.acts):
        target.execute(BEGIN, {"tenant": tenant, "move": move})
    given: dict[str, object] = {"tenant": tenant, "most": most, "moved_on": MOVED_ON, "cell": cell}
    _map_names(source, target, tenant)
    kinds = {"deliveries": _deliveries, "letters": _letters, "events": _events, "acts": _acts}
    begun = [number for number, what in enumerate(kinds) if at._asdict()[what]]
    # Nothing is added to the kinds before, and to look is a long scan.
    for what in [*kinds][max(begun, default=0) :]:
        bring = kinds[what]
        rows, last = bring(source, target, {**given, "after": at._asdict()[what]})
        if rows:
            at = Reached(**{**at._asdict(), what: last})
            break
    at = at._replace(whole=not rows)
    target.execute(REACH, {"tenant": tenant, **at._asdict()})
    return at, rows


def _map_names(source: Connection, target: Connection, tenant: str) -> None:
    for table, query in (("endpoint_was", _ENDPOINTS), ("source_was", _SOURCES)):
        target.execute(text(f"CREATE TEMPORARY TABLE {table} (id int, name text) ON COMMIT DROP"))
        pump(source, target, query, f"{table} (id, name)", {"tenant": tenant})
    for statement in MAPS:
        target.execute(statement, {"tenant": tenant})


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


def _events(source: Connection, target: Connection, given: dict[str, object]) -> tuple[int, int]:
    rows, last = _moved(source, target, "operator_event", _EVENTS, given)
    if rows:
        _put(target, PUT_EVENTS, "operator_event", "id", "endpoint_id", "source_id", "cell", cell=given["cell"])
    return rows, last


def _acts(source: Connection, target: Connection, given: dict[str, object]) -> tuple[int, int]:
    rows, last = _moved(source, target, "audit", _ACTS, given)
    if rows:
        target.execute(ACTS_NOW)
        _put(target, PUT_ACTS, "audit", "id", "begun", "cell", cell=given["cell"])
        ids = list(target.execute(text("SELECT was FROM act_now")).scalars())
        _moved(source, target, "audit", "begun = ANY(%(ids)s)", {"ids": ids})
        _put(target, PUT_ENDS, "audit", "id", "begun", "cell", cell=given["cell"])
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


def _put(conn: Connection, statement: str, table: str, *without: str, **given: object) -> None:
    names = [name for name in columns(conn, table) if name not in without]
    conn.execute(text(statement.format(names=", ".join(names), values=", ".join(f"moved.{name}" for name in names))), given)
