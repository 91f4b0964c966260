"""Statements that bring a tenant's configuration and its work into another cell: everything that is not its ledger.

Rows are copied as they are into temporary tables, and from there into the cell's own, under its own ids. What is known by name
keeps its name; a delivery is known by its entry and its endpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from pipeline.store.config.endpoint_row import SEALED
from pipeline.store.moving.ledger_copy import pump
from pipeline.store.moving.unsettled import unsettled

Reseal = Callable[[bytes], bytes]

_OF_TENANT: Final = "(SELECT id FROM tenant WHERE name = %(tenant)s)"
_ENDPOINTS: Final = f"ARRAY(SELECT id FROM endpoint WHERE tenant_id = {_OF_TENANT})"  # noqa: S608 - constants
_SOURCES: Final = f"ARRAY(SELECT id FROM source WHERE tenant_id = {_OF_TENANT})"  # noqa: S608 - constants
_UNSETTLED: Final = f"ANY (ARRAY(SELECT id FROM ({unsettled(_ENDPOINTS)}) AS each))"  # noqa: S608 - constants
_LOGS: Final = "(SELECT id FROM log WHERE tenant = %(tenant)s)"

#: Which rows of each table go with the tenant, in the order in which they come.
ROWS: Final[Mapping[str, str]] = {
    "source": f"tenant_id = {_OF_TENANT}",
    "endpoint": f"tenant_id = {_OF_TENANT}",
    "subscription": f"endpoint_id = ANY ({_ENDPOINTS})",
    "mailbox": f"id = ANY ({_SOURCES})",
    "mailbox_cursor": f"mailbox_id = ANY ({_SOURCES})",
    "mailbox_folder_error": f"mailbox_id = ANY ({_SOURCES})",
    "mail_item": f"mailbox_id = ANY ({_SOURCES})",
    "delivery": f"id = {_UNSETTLED}",
    "attempt": f"delivery_id = {_UNSETTLED}",
    "dead_letter": "tenant = %(tenant)s AND state = 'open'",
    "retention_progress": "tenant = %(tenant)s",
    "access_token": "tenant = %(tenant)s",
    "log": "tenant = %(tenant)s",
    "log_key": f"log_id IN {_LOGS}",
    "checkpoint": f"log_id IN {_LOGS}",
    "anchor": f"log_id IN {_LOGS} AND kind <> 'published'",
}

#: The columns that hold what is encrypted.
_SECRETS: Final = (("mailbox", "credentials"), ("mailbox", "tokens"), ("log_key", "private"))
_SECRET_LISTS: Final = (("source", "secrets"), ("endpoint", "secrets"))

_MAPS: Final = (
    """CREATE TEMPORARY TABLE endpoint_now ON COMMIT DROP AS
       SELECT moved.id AS was, endpoint.id AS now FROM moved_endpoint AS moved
       JOIN endpoint ON endpoint.name = moved.name AND endpoint.tenant_id = (SELECT id FROM tenant WHERE name = :tenant)""",
    """CREATE TEMPORARY TABLE source_now ON COMMIT DROP AS
       SELECT moved.id AS was, source.id AS now FROM moved_source AS moved
       JOIN source ON source.name = moved.name AND source.tenant_id = (SELECT id FROM tenant WHERE name = :tenant)""",
    """CREATE TEMPORARY TABLE log_now ON COMMIT DROP AS
       SELECT moved.id AS was, log.id AS now FROM moved_log AS moved JOIN log USING (tenant, incarnation)
       WHERE log.tenant = :tenant""",
)
_DELIVERY_MAP: Final = """
    CREATE TEMPORARY TABLE delivery_now ON COMMIT DROP AS
    SELECT moved.id AS was, delivery.id AS now
    FROM moved_delivery AS moved JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id
    JOIN delivery ON (delivery.chain_id, delivery.seq, delivery.endpoint_id) = (moved.chain_id, moved.seq, endpoint_now.now)"""

_TENANT_ID: Final = "(SELECT id FROM tenant WHERE name = :tenant)"
_JOIN_ENDPOINT: Final = "JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id"
_JOIN_SOURCE: Final = "JOIN source_now ON source_now.was = moved.mailbox_id"
_JOIN_LOG: Final = "JOIN log_now ON log_now.was = moved.log_id"

_LETTERS: Final = """LEFT JOIN endpoint_now ON endpoint_now.was = moved.endpoint_id
    LEFT JOIN delivery_now ON delivery_now.was = moved.delivery_id
    WHERE moved.delivery_id IS NULL OR delivery_now.now IS NOT NULL"""

#: For each table what it joins, and what stands in place of columns; None: the cell gives its own.
_PUTS: Final[Sequence[tuple[str, str, Mapping[str, str | None]]]] = (
    ("subscription", _JOIN_ENDPOINT, {"endpoint_id": "endpoint_now.now"}),
    (
        "mailbox",
        "JOIN source_now ON source_now.was = moved.id",
        {"id": "source_now.now", "lease_owner": "NULL", "lease_until": "NULL", "enqueued_at": "NULL", "next_pull_at": "now()"},
    ),
    ("mailbox_cursor", _JOIN_SOURCE, {"mailbox_id": "source_now.now"}),
    ("mailbox_folder_error", _JOIN_SOURCE, {"mailbox_id": "source_now.now"}),
    ("mail_item", _JOIN_SOURCE, {"mailbox_id": "source_now.now"}),
    (
        "delivery",
        _JOIN_ENDPOINT,
        {
            "id": None,
            "endpoint_id": "endpoint_now.now",
            "state": "CASE WHEN moved.state = 'leased' THEN 'pending' ELSE moved.state END",
            "next_attempt_at": "CASE WHEN moved.state = 'leased' THEN now() ELSE moved.next_attempt_at END",
            "lease": "NULL",
            "lease_until": "NULL",
        },
    ),
)
_PUTS_AFTER: Final[Sequence[tuple[str, str, Mapping[str, str | None]]]] = (
    ("attempt", "JOIN delivery_now ON delivery_now.was = moved.delivery_id", {"delivery_id": "delivery_now.now"}),
    (
        "dead_letter",
        _LETTERS,
        {"id": None, "endpoint_id": "endpoint_now.now", "delivery_id": "delivery_now.now"},
    ),
    ("retention_progress", "", {}),
    ("access_token", "", {}),
    ("log_key", f"{_JOIN_LOG} ORDER BY moved.id", {"id": None, "log_id": "log_now.now"}),
    ("checkpoint", _JOIN_LOG, {"log_id": "log_now.now"}),
    ("anchor", f"{_JOIN_LOG} ORDER BY moved.id", {"id": None, "log_id": "log_now.now"}),
)

COLUMNS = text("""
    SELECT quote_ident(attname) FROM pg_attribute
    WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum""")

# By day, as attempts are kept: those of which there is no day any more would have been dropped here, too.
MAKE_DAYS = text("""
    SELECT make_attempt_partitions(first, 1) FROM (
      SELECT DISTINCT CAST(started_at AT TIME ZONE 'UTC' AS date) AS first FROM moved_attempt) AS each""")

PUT_HEALTH = text("""
    INSERT INTO endpoint_health SELECT (jsonb_populate_record(health, jsonb_build_object('endpoint_id', endpoint_now.now))).*
    FROM jsonb_populate_recordset(NULL::endpoint_health, CAST(:rows AS jsonb)) AS health
    JOIN endpoint_now ON endpoint_now.was = health.endpoint_id""")

RESTORE_MAILBOXES = text("""
    UPDATE moved_mailbox SET state = was.state, reason = was.reason, state_at = was.state_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS was (id int, state text, reason text, state_at timestamptz)
    WHERE was.id = moved_mailbox.id""")

RESEAL = text("""
    UPDATE moved_endpoint SET settings = settings || jsonb_build_object(CAST(:name AS text), CAST(:value AS text))
    WHERE id = :id""")

TENANT = text("SELECT fingerprint_key, before_origins, retention, created_at FROM tenant WHERE name = :tenant")
PUT_TENANT = text("""
    INSERT INTO tenant (name, fingerprint_key, before_origins, retention, created_at)
    VALUES (:name, :fingerprint_key, :before_origins, :retention, :created_at)""")
SET_RETENTION = text("UPDATE tenant SET retention = :retention WHERE name = :name")

LETTER_BLOBS = text("SELECT DISTINCT blob FROM dead_letter WHERE tenant = :tenant AND state = 'open' AND blob IS NOT NULL")

WORK = text(f"""
    SELECT count(*), count(*) FILTER (WHERE state IN ('pending', 'leased')), count(*) FILTER (WHERE state = 'paused'),
      count(*) FILTER (WHERE state = 'dead') FROM (
        {unsettled(f"ARRAY(SELECT id FROM endpoint WHERE tenant_id = {_TENANT_ID})")}) AS each""")  # noqa: S608 - constants


def tenant_row(conn: Connection, tenant: str) -> Mapping[str, Any] | None:
    """The tenant's own row; None if there is no such tenant."""
    row = conn.execute(TENANT, {"tenant": tenant}).mappings().one_or_none()
    return None if row is None else dict(row)


def put_tenant(conn: Connection, tenant: str, row: Mapping[str, Any], reseal: Reseal) -> None:
    """The tenant, with its fingerprint key, so that its copy can be verified; without sources nothing comes for it."""
    conn.execute(PUT_TENANT, {**row, "name": tenant, "fingerprint_key": reseal(bytes(row["fingerprint_key"]))})


def letter_blobs(conn: Connection, tenant: str) -> Sequence[str]:
    """The references of bodies that open dead letters of the tenant have in the blob store."""
    return conn.execute(LETTER_BLOBS, {"tenant": tenant}).scalars().all()


def work(conn: Connection, tenant: str) -> tuple[int, ...]:
    """How many deliveries of the tenant are not settled, or dead: in all, due, paused, dead."""
    return tuple(conn.execute(WORK, {"tenant": tenant}).one())


def bring(source: Connection, target: Connection, tenant: str, saved: Mapping[str, str], reseal: Reseal) -> Mapping[str, int]:
    """Copies everything of the tenant but its ledger, within the target's transaction; returns how many rows of each.

    `saved` is JSON by name: the endpoints' health and the mailboxes' states, as they were before the freeze. `reseal` encrypts
    under the target's key what the source's key encrypted.
    """
    given = {"tenant": tenant}
    counts = {}
    for table, which in ROWS.items():
        target.execute(text(f"CREATE TEMPORARY TABLE moved_{table} (LIKE {table}) ON COMMIT DROP"))
        names = ", ".join(columns(target, table))
        query = f"SELECT {names} FROM {table} WHERE {which}"  # noqa: S608 - constants
        if table == "delivery":
            target.execute(text("ALTER TABLE moved_delivery ALTER lane DROP NOT NULL"))
        counts[table] = pump(source, target, query, f"moved_{table} ({names})", given)
    _reseal(target, reseal)
    target.execute(RESTORE_MAILBOXES, {"rows": saved["mailboxes"]})
    for table in ("source", "endpoint"):
        _put(target, table, "", {"id": None, "tenant_id": _TENANT_ID}, tenant)
    for statement in _MAPS:
        target.execute(text(statement), given)
    target.execute(PUT_HEALTH, {"rows": saved["health"]})
    for put in _PUTS:
        _put(target, *put, tenant)
    target.execute(text(_DELIVERY_MAP))
    target.execute(MAKE_DAYS)
    for put in _PUTS_AFTER:
        _put(target, *put, tenant)
    target.execute(SET_RETENTION, {"name": tenant, "retention": (tenant_row(source, tenant) or {}).get("retention")})
    return counts


def _put(conn: Connection, table: str, join: str, instead: Mapping[str, str | None], tenant: str) -> None:
    names = [name for name in columns(conn, table) if instead.get(name, name) is not None]
    values = ", ".join(instead.get(name) or f"moved.{name}" for name in names)
    statement = f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM moved_{table} AS moved {join}"  # noqa: S608
    conn.execute(text(statement), {"tenant": tenant} if ":tenant" in statement else {})


def columns(conn: Connection, table: str) -> Sequence[str]:
    """The names of a table's columns that are not generated."""
    return conn.execute(COLUMNS, {"table": table}).scalars().all()


def _reseal(conn: Connection, reseal: Reseal) -> None:
    for table, column in _SECRETS:
        rows = conn.execute(text(f"SELECT id, {column} FROM moved_{table} WHERE {column} IS NOT NULL")).all()  # noqa: S608
        for id_, secret in rows:
            _set(conn, table, column, id_, reseal(bytes(secret)))
    for table, column in _SECRET_LISTS:
        for id_, secrets in conn.execute(text(f"SELECT id, {column} FROM moved_{table}")).all():  # noqa: S608 - constants
            _set(conn, table, column, id_, [reseal(bytes(each)) for each in secrets])
    for id_, sealed in _sealed(conn):
        conn.execute(RESEAL, {"name": SEALED, "id": id_, "value": reseal(sealed.encode()).decode()})


def _sealed(conn: Connection) -> Iterator[tuple[int, str]]:
    rows = conn.execute(text(f"SELECT id, settings ->> '{SEALED}' FROM moved_endpoint WHERE settings ? '{SEALED}'")).all()  # noqa: S608
    return ((row[0], row[1]) for row in rows)


def _set(conn: Connection, table: str, column: str, id_: int, value: object) -> None:
    conn.execute(text(f"UPDATE moved_{table} SET {column} = :value WHERE id = :id"), {"id": id_, "value": value})  # noqa: S608
