"""The protections of the ledger that the migrations make: triggers, constraints, and what each role may do."""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, ok, wrong
from pipeline.store.admin import inspection

#: Of each table. All are enabled ALWAYS ("A"): `session_replication_role` does not switch them off.
TRIGGERS: Final[Mapping[str, tuple[str, ...]]] = {
    "entry": ("append_only", "append_only_whole", "entry_link"),
    "content": ("content_entry",),
    "chain": ("forward_only",),
}
CONSTRAINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "entry": (
        *("entry_pkey", "entry_fingerprint_key", "entry_hash", "entry_first", "entry_seq_check", "entry_at_check"),
        *("entry_pc_check", "entry_tenant_check", "entry_kind_check"),
    ),
    "content": ("content_pkey",),
    "chain": ("chain_pkey", "chain_chain_id_key"),
}

#: What the members of each role may do with whole tables. None but the owner has UPDATE, DELETE or TRUNCATE on a table of the
#: ledger, of deliveries or of dead letters: each of them would allow LOCK TABLE in every mode, too.
_READ, _ADD, _OWN = "SELECT", "INSERT SELECT", "DELETE INSERT SELECT UPDATE"
_ANSWERS: Final = ("alembic_version", "attempt", "audit", "catalog", "chain", "chain_aside", "content", "dead_letter")
_MORE_ANSWERS: Final = (
    "delivery",
    "endpoint_health",
    "entry",
    "mail_document",
    "mailbox_cursor",
    "mailbox_folder_error",
    "operator_event",
)
GRANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "waxseal_writer": {
        **dict.fromkeys(("alembic_version", "catalog", "endpoint", "mailbox", "source", "subscription", "tenant"), _READ),
        **dict.fromkeys(("attempt", "audit", "chain", "chain_aside", "content", "dead_letter", "delivery", "entry"), _ADD),
        **dict.fromkeys(("endpoint_health", "mail_document", "operator_event", "verification"), _ADD),
        **dict.fromkeys(("mail_item", "mailbox_cursor", "mailbox_folder_error"), _OWN),
    },
    "waxseal_reader": {**dict.fromkeys((*_ANSWERS, *_MORE_ANSWERS, "subscription", "tenant"), _READ), "verification": _ADD},
}

#: What they may do with single columns of those tables.
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "waxseal_writer": {
        "catalog": "UPDATE(version)",
        "chain": "UPDATE(seq) UPDATE(hash)",
        "dead_letter": "UPDATE(state) UPDATE(detail) UPDATE(error) UPDATE(attempts) UPDATE(last_at) UPDATE(decided_at)"
        " UPDATE(decided_by)",
        "delivery": "UPDATE(state) UPDATE(attempts) UPDATE(next_attempt_at) UPDATE(lease) UPDATE(lease_until)"
        " UPDATE(settled_at) UPDATE(error) UPDATE(age_from) UPDATE(schedule_from)",
        "endpoint": "UPDATE(state) UPDATE(reason)",
        "mail_document": "UPDATE(due) UPDATE(taken_at) UPDATE(document) UPDATE(parser) UPDATE(made_at)",
    },
    "waxseal_reader": {
        "endpoint": "SELECT(id) SELECT(tenant_id) SELECT(name) SELECT(transport) SELECT(url) SELECT(settings) SELECT(state)"
        " SELECT(reason) SELECT(created_at)",
        "source": "SELECT(id) SELECT(tenant_id) SELECT(name) SELECT(kind) SELECT(created_at)",
    },
}
#: Tables on whose columns a role may have no other right; of `endpoint_health` and `mailbox` it has nearly all.
_EXACT: Final = ("chain", "content", "dead_letter", "delivery", "endpoint", "entry", "source", "tenant")

PUBLIC: Final = "PUBLIC"  # everybody
KNOWN: Final = frozenset(table for tables in GRANTS.values() for table in tables)

_RESTORE: Final = "find out who removed it; restore it as `pg_dump --schema-only` of an empty, migrated database has it"


def check_protections(conn: Connection) -> Iterator[Finding]:
    """The triggers and constraints: each is there, and in force for everyone."""
    faults = []
    for table, names in TRIGGERS.items():
        found = inspection.triggers(conn, table)
        for name in names:
            if name not in found:
                faults.append(wrong("append-only", f"the trigger {name} of {table} is missing", _RESTORE))
            elif found[name] != "A":
                enable = f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}; then `waxseal verify`"
                said = f"the trigger {name} of {table} is not always enabled"
                faults.append(wrong("append-only", said, enable))
    for table, names in CONSTRAINTS.items():
        valid = inspection.constraints(conn, table)
        gone = [name for name in names if name not in valid]
        told = [f"the constraint {name} of {table} is missing or not valid" for name in gone]
        faults += [wrong("append-only", each, _RESTORE) for each in told]
    yield from faults
    if not faults:
        triggers, constraints = (sum(map(len, each.values())) for each in (TRIGGERS, CONSTRAINTS))
        yield ok("append-only", f"{triggers} triggers are always enabled, {constraints} constraints are valid")


def check_grants(conn: Connection) -> Iterator[Finding]:
    """What each role may do: all that it needs, and no more; everybody, nothing."""
    faults = [fault for role in (*GRANTS, PUBLIC) for fault in _of_role(conn, role)]
    yield from faults
    if not faults:
        tables = sum(map(len, GRANTS.values()))
        yield ok("grants", f"{' and '.join(GRANTS)} have what they need on {tables} tables, and no more")


def _of_role(conn: Connection, role: str) -> Iterator[Finding]:
    yield from _compared(role, GRANTS.get(role, {}), inspection.grants(conn, role), KNOWN)
    yield from _compared(role, COLUMNS.get(role, {}), inspection.column_grants(conn, role), _EXACT)


def _compared(role: str, needed: Mapping[str, str], found: Mapping[str, str], exact: Collection[str]) -> Iterator[Finding]:
    """What `role` lacks, and what it has too much, the latter of the `exact` tables only."""
    for table in sorted({*needed, *found}):
        wanted, given = set(needed.get(table, "").split()), set(found.get(table, "").split())
        if missing := wanted - given:
            rights = ", ".join(sorted(missing))
            mend = f"as the database's owner: GRANT {rights} ON {table} TO {role}"
            yield wrong("grants", f"{role} lacks {rights} on {table}", mend)
        if table in exact and (extra := given - wanted):
            rights = ", ".join(sorted(extra))
            mend = f"as the database's owner: REVOKE {rights} ON {table} FROM {role}"
            yield wrong("grants", f"{role} has {rights} on {table}", mend)
