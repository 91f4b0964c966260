"""Checks of Postgres: what commits are worth there, its limits, this login, and the protections of the ledger."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.archive_checks import check_archiving
from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.admin.doctor.ledger_protections import check_grants, check_protections
from ops.runtime.schema_check import judge
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.store.admin import inspection, queries, schema_version, server_facts

OLDEST: Final = 140000  # server_version_num of the oldest Postgres that the migrations run on
DURABLE: Final = ("fsync", "full_page_writes", "synchronous_commit")
_NUMBER: Final = re.compile(r"(?:any|first)?\s*(\d+)\s*\(", re.IGNORECASE)
CLOCK: Final = 2.0  # seconds that clocks may differ
FULL: Final = 0.8  # share of the connections in use, from which on there are too few


def check_postgres(conn: Connection, settings: Settings, *, alone: bool = False) -> Iterator[Finding]:
    """Every check, the server's first; those of the schema only if it is the one that this program was written for.

    `alone`: it is a private server, which never has a standby.
    """
    yield from _server(conn)
    yield from _durability(conn, alone=alone)
    yield check_archiving(server_facts.archiving(conn))
    state, told = judge(schema_version.found(conn))
    if state != "current":
        yield wrong("schema", told, "run `waxseal migrate` as the database's owner" if state in ("empty", "older") else told)
        return
    yield ok("schema", told)
    yield from _login(conn)
    yield from check_protections(conn)
    yield from check_grants(conn)
    yield from _days(conn)
    yield from _keys(conn, settings)


def _server(conn: Connection) -> Iterator[Finding]:
    before = datetime.now(UTC)
    server = inspection.server(conn)
    apart = _apart(server["at"], before, datetime.now(UTC))
    version = f"PostgreSQL {server['version']}"
    if server["number"] < OLDEST:
        yield wrong("postgres version", version, f"upgrade to {OLDEST // 10000} or newer")
    else:
        yield ok("postgres version", version)
    if server["in_recovery"]:
        yield wrong("postgres role", "a standby, which takes no writes", "let WAXSEAL_DATABASE_URL name the primary")
    if server["encoding"] != "UTF8":
        yield wrong("postgres encoding", str(server["encoding"]), "create the database with ENCODING 'UTF8', and migrate it")
    if apart > CLOCK:
        yield wrong("clocks", f"this machine and Postgres are {apart:.1f} s apart", "run an NTP client on both machines")
    else:
        yield ok("clocks", f"this machine and Postgres are less than {CLOCK:.0f} s apart")
    used, most = server["used"], server["connections"]
    if used >= FULL * most:
        mend = "raise max_connections and restart Postgres, or run fewer processes, or put a pooler before it"
        yield wrong("postgres connections", f"{used} of {most} in use", mend)
    else:
        yield ok("postgres connections", f"{used} of {most} in use")


def _apart(there: datetime, before: datetime, after: datetime) -> float:
    """By how many seconds at least the clocks differ, when the server's was read between two readings of ours."""
    return max(0.0, (before - there).total_seconds(), (there - after).total_seconds())


def _durability(conn: Connection, *, alone: bool) -> Iterator[Finding]:
    names = (*DURABLE, "synchronous_standby_names", "data_checksums")
    found = inspection.settings(conn, names)
    off = [name for name in DURABLE if found[name] == "off"]
    for name in off:
        mend = f"set {name} = on in postgresql.conf and reload it; remove the setting from the role and the database"
        yield wrong("durable commits", f"{name} is off: a crash loses what was acknowledged", mend)
    if not off:
        yield ok("durable commits", ", ".join(f"{name} is {found[name]}" for name in DURABLE))
    if found["data_checksums"] != "on":
        mend = "stop Postgres and run pg_checksums --enable"
        yield note("data checksums", "off: a disk's silent faults are found by `waxseal verify` only", mend)
    if not alone:
        yield _standbys(conn, found["synchronous_standby_names"], found["synchronous_commit"])


def _standbys(conn: Connection, names: str, commit: str) -> Finding:
    if not names:
        what = "none: what was acknowledged is on one machine only"
        return note(
            "synchronous standbys", what, "set synchronous_standby_names, if the loss of that machine must lose nothing"
        )
    connected = inspection.synchronous_standbys(conn)
    if commit == "local":
        mend = "set synchronous_commit = on in postgresql.conf and reload it"
        return wrong("synchronous standbys", f"{names} are named, but synchronous_commit = local does not wait for them", mend)
    if connected < (needed := _needed(names)):
        mend = "start a standby, or take it out of synchronous_standby_names; only a member of pg_monitor can see standbys"
        what = f"{names} are named, {needed} of them must have a commit, and {connected} are connected: every commit waits"
        return wrong("synchronous standbys", what, mend)
    return ok("synchronous standbys", f"{connected} connected of {names}")


def _needed(names: str) -> int:
    """How many standbys a commit waits for: `ANY 2 (a, b, c)`, `2 (a, b)`, or one."""
    number = _NUMBER.match(names.lstrip())
    return int(number[1]) if number else 1


def _login(conn: Connection) -> Iterator[Finding]:
    login = inspection.login(conn)
    if login["superuser"] or login["owner"]:
        who = "a superuser" if login["superuser"] else "the ledger's owner"
        mend = "let processes log in as a member of waxseal_writer; `waxseal up` does so"
        yield note("login", f"{login['name']} is {who}: it could switch the ledger's protections off", mend)
    elif not login["writer"]:
        mend = f"as the database's owner: GRANT waxseal_writer TO {login['name']}"
        yield wrong("login", f"{login['name']} is no member of waxseal_writer: processes cannot write", mend)
    else:
        yield ok("login", f"{login['name']} is a member of waxseal_writer, and no owner")


def _days(conn: Connection) -> Iterator[Finding]:
    today = datetime.now(UTC).date()
    missing = [day for day in (today, today + timedelta(days=1)) if not inspection.has_day(conn, day)]
    if missing:
        days = ", ".join(map(str, missing))
        mend = "run `waxseal relay`, which makes them ahead; its log says why it could not"
        yield wrong("attempts", f"there is no partition for {days}: attempts of that day cannot be stored", mend)
    else:
        yield ok("attempts", "there are partitions for today and tomorrow")


def _keys(conn: Connection, settings: Settings) -> Iterator[Finding]:
    keys, tenants = settings.fernet_keys(), queries.tenants(conn)
    if not keys:
        return
    vault, locked = Vault(keys), []
    for name, key in tenants.items():
        try:
            vault.decrypt(key)
        except Exception:  # noqa: BLE001 - whatever the reason, these keys do not open it
            locked.append(name)
    if locked:
        mend = "add the key that they were encrypted with to WAXSEAL_KEYS, or to the keys file"
        yield wrong("keys", f"they do not decrypt the secrets of {', '.join(locked[:10])}", mend)
    else:
        yield ok("keys", f"{len(keys)} of them; they decrypt the secrets of all {len(tenants)} tenants")
