"""Statements that inspect the database itself: the server's settings, this login's rights, and those of each role."""

from collections.abc import Collection, Mapping, Sequence
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

# Rights on whole tables; those on single columns are not among them. PUBLIC, the oid 0, has no row in pg_roles. A function on
# which nothing was granted or revoked has no list, and the rights that every new one has.
GRANTS = text("""
    SELECT name, string_agg(DISTINCT privilege_type, ' ' ORDER BY privilege_type) AS rights
    FROM (
      SELECT CASE relkind WHEN 'S' THEN 'sequence ' ELSE '' END || relname AS name, relacl AS list
      FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace) AND relkind IN ('r', 'p', 'S') AND NOT relispartition
      UNION ALL
      SELECT 'function ' || proname, coalesce(proacl, acldefault('f', proowner))
      FROM pg_proc WHERE pronamespace = CAST('public' AS regnamespace)) AS things
    CROSS JOIN LATERAL aclexplode(list) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE coalesce(rolname, 'PUBLIC') = :role GROUP BY name""")

COLUMN_GRANTS = text("""
    SELECT relname AS name, string_agg(DISTINCT privilege_type || '(' || attname || ')', ' ') AS rights
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    CROSS JOIN LATERAL aclexplode(attacl) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE relnamespace = CAST('public' AS regnamespace) AND coalesce(rolname, 'PUBLIC') = :role GROUP BY relname""")

ATTRIBUTES = text("""
    SELECT rolname AS role, ARRAY(
        SELECT attribute FROM unnest(
            ARRAY['SUPERUSER', 'INHERIT', 'CREATEROLE', 'CREATEDB', 'LOGIN', 'REPLICATION', 'BYPASSRLS'],
            ARRAY[rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls])
          AS had (attribute, given) WHERE given) AS attributes
    FROM pg_roles WHERE rolname = ANY(:roles)""")

# A member that does not inherit has the other's rights after SET ROLE only, which no process does.
MEMBERSHIPS = text("""
    SELECT member.rolname AS role, parent.rolname AS parent, bool_or(pg_has_role(member.oid, parent.oid, 'USAGE')) AS inherits
    FROM pg_auth_members AS made JOIN pg_roles AS member ON member.oid = made.member
    JOIN pg_roles AS parent ON parent.oid = made.roleid
    WHERE member.rolname = ANY(:roles) GROUP BY 1, 2""")

# The owner of the ledger may do everything anyway, and may be a member of the roles that it made.
LOGINS = text("""
    SELECT login.rolname AS role, array_agg(DISTINCT parent.rolname ORDER BY parent.rolname) AS parents
    FROM pg_auth_members AS made JOIN pg_roles AS login ON login.oid = made.member
    JOIN pg_roles AS parent ON parent.oid = made.roleid
    WHERE parent.rolname = ANY(:roles) AND login.rolcanlogin AND login.rolname <> ALL(:roles)
      AND NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('entry') AND relowner = login.oid)
    GROUP BY 1 ORDER BY 1""")

DAYS = text("""
    SELECT to_regclass('attempt_' || to_char(CAST(:day AS date), 'YYYYMMDD')) IS NOT NULL""")

BACKENDS = text("SELECT pid FROM pg_stat_activity WHERE client_port = ANY(CAST(:ports AS int[]))")

# The whole server's log, and the files of our tables. Those of the catalog grow with statistics and with who connects.
WRITTEN = text("""
    SELECT CAST(pg_current_wal_insert_lsn() - '0/0' AS bigint) AS log, sum(pg_total_relation_size(oid)) AS files
    FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace) AND relkind = 'r'""")

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
    """What members of a role may do with each table, `sequence NAME` and `function NAME`; with PUBLIC, what everybody may."""
    return {row.name: row.rights for row in conn.execute(GRANTS, {"role": role})}


def column_grants(conn: Connection, role: str) -> dict[str, str]:
    """What they may do with single columns of each table, each as `RIGHT(column)`."""
    return {row.name: row.rights for row in conn.execute(COLUMN_GRANTS, {"role": role})}


def attributes(conn: Connection, roles: Sequence[str]) -> dict[str, set[str]]:
    """The attributes of each role, as CREATE ROLE names them."""
    return {row.role: set(row.attributes) for row in conn.execute(ATTRIBUTES, {"roles": list(roles)})}


def memberships(conn: Connection, roles: Sequence[str]) -> dict[str, dict[str, bool]]:
    """The roles that each role was made a member of, and whether it has their rights thereby."""
    found: dict[str, dict[str, bool]] = {}
    for row in conn.execute(MEMBERSHIPS, {"roles": list(roles)}):
        found.setdefault(row.role, {})[row.parent] = row.inherits
    return found


def logins(conn: Connection, roles: Sequence[str]) -> dict[str, list[str]]:
    """The logins that were made members of these roles, and of which; but for the ledger's owner."""
    return {row.role: list(row.parents) for row in conn.execute(LOGINS, {"roles": list(roles)})}


def written(conn: Connection) -> tuple[int, int]:
    """The bytes of write-ahead log that the server has written since it was made, and those of the tables' files."""
    log, files = conn.execute(WRITTEN).one()
    return int(log), int(files)


def backends(conn: Connection, ports: Collection[int]) -> list[int]:
    """The processes of the server that serve clients on these ports of theirs."""
    return list(conn.execute(BACKENDS, {"ports": list(ports)}).scalars())


def has_day(conn: Connection, day: date) -> bool:
    """Whether attempts of that day can be stored."""
    return bool(conn.execute(DAYS, {"day": day}).scalar_one())


def hosts(conn: Connection, limit: int) -> Sequence[Row]:
    """Where active endpoints and mailboxes are: their kind and name, and a URL or a host."""
    return conn.execute(HOSTS, {"limit": limit}).mappings().all()
