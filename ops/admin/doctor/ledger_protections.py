"""The protections of the ledger that the migrations make: triggers, constraints, and what each role may do."""

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, ok, wrong
from ops.admin.doctor.role_rights import COLUMNS, GRANTS, KNOWN
from ops.admin.verifying import protections
from pipeline.store.admin import inspection

PUBLIC: Final = "PUBLIC"  # everybody

_RESTORE: Final = "find out who changed it; restore it as `pg_dump --schema-only` of an empty, migrated database has it"


def check_protections(conn: Connection) -> Iterator[Finding]:
    """The triggers and constraints: each is there, and in force for everyone."""
    gaps = list(protections.gaps(conn))
    for gap in gaps:
        yield wrong("append-only", gap.detail, f"{gap.mend}; then `waxseal verify`" if gap.mend else _RESTORE)
    if not gaps:
        triggers, constraints = len(protections.triggers()), len(protections.CONSTRAINTS)
        yield ok("append-only", f"{triggers} triggers are always enabled, {constraints} constraints are valid")


def check_grants(conn: Connection) -> Iterator[Finding]:
    """What each role may do: all that it needs, and no more; everybody, nothing."""
    faults = [fault for role in (*GRANTS, PUBLIC) for fault in _of_role(conn, role)]
    yield from faults
    if not faults:
        yield ok("grants", f"{', '.join(GRANTS)} have what they need on {len(KNOWN)} tables, and no more")


def _of_role(conn: Connection, role: str) -> Iterator[Finding]:
    yield from _compared(role, GRANTS.get(role, {}), inspection.grants(conn, role))
    yield from _compared(role, COLUMNS.get(role, {}), inspection.column_grants(conn, role))


def _compared(role: str, needed: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    """What `role` lacks, and what it has too much; tables that are not Waxseal's are nobody's concern here."""
    for table in sorted({*needed, *found} & KNOWN):
        wanted, given = set(needed.get(table, "").split()), set(found.get(table, "").split())
        if missing := wanted - given:
            rights = ", ".join(sorted(missing))
            mend = f"as the database's owner: GRANT {rights} ON {table} TO {role}"
            yield wrong("grants", f"{role} lacks {rights} on {table}", mend)
        if extra := given - wanted:
            rights = ", ".join(sorted(extra))
            mend = f"as the database's owner: REVOKE {rights} ON {table} FROM {role}"
            yield wrong("grants", f"{role} has {rights} on {table}", mend)
