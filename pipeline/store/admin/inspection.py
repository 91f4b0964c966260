"""Statements that inspect the database itself: the server's settings, this login's rights, and those of each role."""

from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

SETTINGS = text("""
    SELECT name, current_setting(name) AS value FROM unnest(CAST(:names AS text[])) AS name
    WHERE current_setting(name, true) IS NOT NULL""")

SERVER = text("""
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
           current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS in_recovery, clock_timestamp() AS at,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS connections,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used""")

# A standby that is not listed by name in synchronous_standby_names, or has gone, is not synchronous.
STANDBYS = text("SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")

LOGIN = text("""
    SELECT current_user AS name, rolsuper AS superuser,
           EXISTS (SELECT FROM pg_roles WHERE rolname = 'waxseal_writer')
             AND pg_has_role(current_user, 'waxseal_writer', 'MEMBER') AS writer,
           EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('entry') AND pg_has_role(current_user, relowner, 'MEMBER'))
             AS owner
    FROM pg_roles WHERE rolname = current_user""")

# Rights on whole tables; those on single columns are not among them. PUBLIC, the oid 0, has no row in pg_roles.
GRANTS = text("""
    SELECT relname AS name, string_agg(DISTINCT privilege_type, ' ' ORDER BY privilege_type) AS rights
    FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE relnamespace = CAST('public' AS regnamespace) AND relkind IN ('r', 'p') AND NOT relispartition
    AND coalesce(rolname, 'PUBLIC') = :role GROUP BY relname""")

COLUMN_GRANTS = text("""
    SELECT relname AS name, string_agg(DISTINCT privilege_type || '(' || attname || ')', ' ') AS rights
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    CROSS JOIN LATERAL aclexplode(attacl) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE relnamespace = CAST('public' AS regnamespace) AND coalesce(rolname, 'PUBLIC') = :role GROUP BY relname""")

DAYS = text("""
    SELECT to_regclass('attempt_' || to_char(CAST(:day AS date), 'YYYYMMDD')) IS NOT NULL""")

# The whole server's log, and this database's files.
WRITTEN = text("""
    SELECT CAST(pg_current_wal_insert_lsn() - '0/0' AS bigint) AS log, pg_database_size(current_database()) AS files""")

HOSTS = text("""
    SELECT tenant.name || '/' || endpoint.name AS name, 'endpoint' AS kind, url,
           CASE WHEN transport = 'smtp' THEN settings -> 'smtp' ->> 'host' END AS host
    FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE state = 'active'
    UNION ALL
    SELECT tenant.name || '/' || source.name, 'mailbox', NULL, mailbox.settings ->> 'host'
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id WHERE mailbox.state = 'active'
    ORDER BY 1 LIMIT :limit""")


def settings(conn: Connection, names: Sequence[str]) -> Mapping[str, str]:
    """The server's settings of these names, as this session has them, those that it knows."""
    return {row.name: row.value for row in conn.execute(SETTINGS, {"names": list(names)})}


def server(conn: Connection) -> Row:
    """The server's version, encoding, time, and how many of its connections are in use."""
    return conn.execute(SERVER).mappings().one()


def synchronous_standbys(conn: Connection) -> int:
    """How many standbys a commit can wait for at the moment. Needs the rights of a monitor; without them it is 0."""
    return int(conn.execute(STANDBYS).scalar_one())


def login(conn: Connection) -> Row:
    """Who this session is: a superuser, a member of waxseal_writer, an owner of the ledger."""
    return conn.execute(LOGIN).mappings().one()


def grants(conn: Connection, role: str) -> dict[str, str]:
    """What members of a role may do with each table; with PUBLIC, what everybody may."""
    return {row.name: row.rights for row in conn.execute(GRANTS, {"role": role})}


def column_grants(conn: Connection, role: str) -> dict[str, str]:
    """What they may do with single columns of each table, each as `RIGHT(column)`."""
    return {row.name: row.rights for row in conn.execute(COLUMN_GRANTS, {"role": role})}


def written(conn: Connection) -> tuple[int, int]:
    """The bytes of write-ahead log that the server has written since it was made, and those of this database's files."""
    log, files = conn.execute(WRITTEN).one()
    return int(log), int(files)


def has_day(conn: Connection, day: date) -> bool:
    """Whether attempts of that day can be stored."""
    return bool(conn.execute(DAYS, {"day": day}).scalar_one())


def hosts(conn: Connection, limit: int) -> Sequence[Row]:
    """Where active endpoints and mailboxes are: their kind and name, and a URL or a host."""
    return conn.execute(HOSTS, {"limit": limit}).mappings().all()
