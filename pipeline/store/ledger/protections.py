"""Statements that read by what the database itself guards the ledger."""

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, text

TABLES: Final = ("entry", "content", "chain", "leaf", "checkpoint", "anchor", "log", "log_pending", "log_key")

# A table that was dropped has no triggers and no constraints.
TRIGGERS = text("""
    SELECT tgrelid::regclass::text AS place, tgname, tgenabled::text = 'A' AS always, proname, prosrc
    FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE tgrelid = ANY(ARRAY(SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)) AND NOT tgisinternal""")

# A unique index counts only while it is valid, in use and immediate; a check or a key only once it is validated.
CONSTRAINTS = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid)
    FROM pg_constraint LEFT JOIN pg_index ON indexrelid = conindid
    WHERE conrelid = ANY(ARRAY(SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)) AND convalidated
      AND (contype NOT IN ('p', 'u') OR indisvalid AND indisready AND indislive AND indisunique AND indimmediate)""")

# By any role that is not the owner, however it came by the right; `granted` are those that the migrations grant to a role, and
# so to its members. Of the functions, those that run as their owner.
GRANTS = text("""
    WITH roles AS (
      SELECT oid, rolname FROM pg_roles AS role
      WHERE NOT rolsuper AND (rolname LIKE 'waxseal\\_%' OR EXISTS (
          SELECT FROM pg_auth_members JOIN pg_roles AS parent ON parent.oid = roleid
          WHERE pg_auth_members.member = role.oid AND parent.rolname = ANY(CAST(:roles AS text[]))))
        AND NOT EXISTS (
        SELECT FROM pg_class WHERE pg_class.oid = to_regclass('entry') AND pg_has_role(role.oid, relowner, 'USAGE'))),
    places AS (
      SELECT name AS place, to_regclass(name) AS oid FROM unnest(CAST(:tables AS text[])) AS name
      WHERE to_regclass(name) IS NOT NULL),
    held AS (
      SELECT roles.oid, rolname, place, kind FROM roles CROSS JOIN places
        CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS kind
      WHERE has_table_privilege(roles.oid, places.oid, kind)
      UNION ALL
      SELECT roles.oid, rolname, place, kind || '(' || attname || ')' FROM roles CROSS JOIN places
        JOIN pg_attribute ON attrelid = places.oid AND attnum > 0 AND NOT attisdropped
        CROSS JOIN unnest(ARRAY['INSERT', 'UPDATE']) AS kind
      WHERE has_column_privilege(roles.oid, places.oid, attnum, kind) AND NOT has_table_privilege(roles.oid, places.oid, kind)
      UNION ALL
      SELECT roles.oid, rolname, 'function ' || proname, 'EXECUTE' FROM roles CROSS JOIN pg_proc
      WHERE pronamespace = CAST('public' AS regnamespace) AND prosecdef
        AND has_function_privilege(roles.oid, pg_proc.oid, 'EXECUTE')),
    extra AS (
      SELECT * FROM held WHERE NOT EXISTS (
        SELECT FROM unnest(CAST(:roles AS text[]), CAST(:places AS text[]), CAST(:kinds AS text[]))
          AS granted (role, place, kind) JOIN pg_roles AS giver ON giver.rolname = granted.role
        WHERE granted.place = held.place AND granted.kind = held.kind AND pg_has_role(held.oid, giver.oid, 'USAGE')))
    SELECT rolname, place, kind FROM extra WHERE NOT EXISTS (
        SELECT FROM extra AS parent
        WHERE parent.place = extra.place AND parent.kind = extra.kind AND parent.oid <> extra.oid
          AND pg_has_role(extra.oid, parent.oid, 'USAGE'))
    ORDER BY 1, 2, 3""")

SAMPLE = text("""
    SELECT entry_envelope('00112233-4455-6677-8899-aabbccddeeff', 7, '\\x01', 'acme', 1700000000000001, 'event', '\\x02'),
           entry_envelope('00112233-4455-6677-8899-aabbccddeeff', 0, NULL, 'a-b', -1, 'heads', NULL)""")


class Trigger:
    """A trigger as the catalog has it: whether it is enabled always, and its function's name and body."""

    def __init__(self, always: bool, function: str, body: str) -> None:
        self.always, self.function, self.body = always, function, body


def triggers(conn: Connection) -> Mapping[tuple[str, str], Trigger]:
    """The triggers of the ledger's tables, by table and name."""
    return {(row[0], row[1]): Trigger(row[2], row[3], row[4]) for row in conn.execute(TRIGGERS, {"tables": list(TABLES)})}


def constraints(conn: Connection) -> Mapping[tuple[str, str], str]:
    """The definitions of the constraints that hold on the ledger's tables, by table and name."""
    return {(row[0], row[1]): row[2] for row in conn.execute(CONSTRAINTS, {"tables": list(TABLES)})}


def rights(conn: Connection, granted: Collection[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """(role, table or function, right) of our roles and their logins, by which the ledger's tables can be changed or emptied.

    Among them to add to them, to put triggers on them, and to call functions that run as their owner. Leaves out what is
    `granted`, in this form, and what a login has of a role of which it is told.
    """
    roles, places, kinds = (list(each) for each in zip(*granted, strict=True))
    given = {"tables": list(TABLES), "roles": roles, "places": places, "kinds": kinds}
    return [(role, table, right) for role, table, right in conn.execute(GRANTS, given)]


def sample_envelopes(conn: Connection) -> tuple[bytes, bytes]:
    """What the database's own function makes of two entries: (0x001122…, 7, 0x01, acme, …) and (0x001122…, 0, null, a-b, …)."""
    row = conn.execute(SAMPLE).one()
    return bytes(row[0]), bytes(row[1])
