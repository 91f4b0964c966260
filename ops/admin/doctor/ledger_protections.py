"""The protections of the ledger that the migrations make: triggers, constraints, and what each role may do."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.admin.verifying import protections, role_differences
from ops.admin.verifying.role_rights import KNOWN, ROLES
from pipeline.store.admin import inspection

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
    """What each role may do: all that it needs, and no more; everybody, nothing. And that no login has several roles."""
    faults = [*role_differences.of_grants(conn), *role_differences.of_roles(conn)]
    for fault in faults:
        who = "the database's owner" if " ON " in fault.mend else "a superuser"
        yield wrong("grants", fault.detail, f"as {who}: {fault.mend}")
    if not faults:
        yield ok(
            "grants", f"{', '.join(ROLES)} have what they need on {len(KNOWN)} tables, sequences and functions, and no more"
        )
    for login, parents in inspection.logins(conn, ROLES).items():
        if len(parents) > 1:
            mend = "let each process log in as a member of one role (operating.md, production); `waxseal up` does so"
            yield note("login", f"{login} is a member of {' and '.join(parents)}: what one may not do, the other may", mend)
