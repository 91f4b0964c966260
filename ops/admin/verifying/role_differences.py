"""Compares what each role may do in the database with what the migrations grant it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from ops.admin.verifying.role_rights import ATTRIBUTES, COLUMNS, GRANTS, KNOWN, MEMBER_OF, ROLES
from pipeline.store.admin import inspection

_POWERS: Final = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")  # that no process's login needs


@dataclass(frozen=True, slots=True)
class Difference:
    """What a role has too much (`extra`) or lacks, and the statement that mends it."""

    detail: str
    mend: str
    extra: bool


def of_grants(conn: Connection) -> Iterator[Difference]:
    """Each right on a table, column, sequence or function that a role lacks, or has too much."""
    for role, wanted in GRANTS.items():
        yield from _compared(role, wanted, inspection.grants(conn, role))
        yield from _compared(role, COLUMNS.get(role, {}), inspection.column_grants(conn, role))


def of_roles(conn: Connection) -> Iterator[Difference]:
    """Each attribute and each membership that a role lacks or has too much; each power that a login of one has besides."""
    attributes = inspection.attributes(conn, ROLES)
    for role, found in attributes.items():
        for attribute in sorted(found - ATTRIBUTES):
            yield Difference(f"{role} has {attribute}", f"ALTER ROLE {role} NO{attribute}", True)
        for attribute in sorted(ATTRIBUTES - found):
            yield Difference(f"{role} lacks {attribute}", f"ALTER ROLE {role} {attribute}", False)
    memberships = inspection.memberships(conn, ROLES)
    for role in ROLES:
        wanted, given = MEMBER_OF.get(role, set()), memberships.get(role, {})
        for other in sorted(given.keys() - wanted):
            yield Difference(f"{role} is a member of {other}", f"REVOKE {other} FROM {role}", True)
        for other in sorted(wanted - {of for of, inherits in given.items() if inherits}):
            yield Difference(f"{role} is no member of {other}", f"GRANT {other} TO {role}", False)
    logins = inspection.logins(conn, ROLES)
    for login, found in inspection.attributes(conn, list(logins)).items():
        for attribute in (each for each in _POWERS if each in found):
            detail = f"{login}, a member of {' and '.join(logins[login])}, has {attribute}"
            yield Difference(detail, f"ALTER ROLE {login} NO{attribute}", True)


def _compared(role: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Difference]:
    for thing in sorted({*wanted, *found} & KNOWN):
        needed, given = set(wanted.get(thing, "").split()), set(found.get(thing, "").split())
        if missing := ", ".join(sorted(needed - given)):
            yield Difference(f"{role} lacks {missing} on {thing}", f"GRANT {missing} ON {thing} TO {role}", False)
        if extra := ", ".join(sorted(given - needed)):
            yield Difference(f"{role} has {extra} on {thing}", f"REVOKE {extra} ON {thing} FROM {role}", True)
