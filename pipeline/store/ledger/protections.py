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
# so to its members.
GRANTS = text("""
    SELECT role.rolname, place::text, kind FROM unnest(CAST(:tables AS text[])) AS name CROSS JOIN to_regclass(name) AS place
      CROSS JOIN unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS kind JOIN pg_class ON pg_class.oid = place
      CROSS JOIN pg_roles AS role
    WHERE role.rolname LIKE 'waxseal\\_%' AND NOT role.rolsuper AND NOT pg_has_role(role.oid, relowner, 'USAGE')
      AND has_table_privilege(role.oid, place, kind)
      AND NOT EXISTS (
        SELECT FROM unnest(CAST(:roles AS text[]), CAST(:places AS text[]), CAST(:kinds AS text[]))
          AS granted (role, place, kind)
        WHERE granted.place = place::text AND granted.kind = kind AND pg_has_role(role.oid, granted.role, 'USAGE'))
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
    """(role, table, right) of our roles to change or empty whole tables of the ledger, or to put triggers on them.

    Leaves out what is `granted`, in the same form.
    """
    roles, places, kinds = (list(each) for each in zip(*granted, strict=True))
    given = {"tables": list(TABLES), "roles": roles, "places": places, "kinds": kinds}
    return [(role, table, right) for role, table, right in conn.execute(GRANTS, given)]


def sample_envelopes(conn: Connection) -> tuple[bytes, bytes]:
    """What the database's own function makes of two entries: (0x001122…, 7, 0x01, acme, …) and (0x001122…, 0, null, a-b, …)."""
    row = conn.execute(SAMPLE).one()
    return bytes(row[0]), bytes(row[1])
