"""Which of several servers is the primary now: one that was replaced and comes back takes writes too, and must get none.

Each promotion begins a timeline with a higher number. A process remembers the highest that it has seen, and uses no server and
no connection of an older one. What it has not seen by itself it asks the other hosts of the URL for.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import psycopg

_PORT: Final = "5432"
ASKED: Final = 3  # seconds that another host has for its answer
_QUESTION: Final = """
    SELECT system_identifier, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    FROM pg_control_system() WHERE NOT pg_is_in_recovery()"""

# The functions were revoked from everybody, are not there in what resembles Postgres, or a standby is just being promoted.
_UNTOLD: Final = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.ObjectNotInPrerequisiteState,
)

Host = tuple[str, str]
"""A host of a URL, as it is written there, and its port."""


class Timeline(NamedTuple):
    """Of a server that takes writes. `system` is the same for a primary and its standbys."""

    system: int
    number: int


class OldPrimary(psycopg.OperationalError):
    """Another server was promoted since: this one must not be written to, and what it holds may not be there any more."""


_newest: dict[int, int] = {}  # by system


def note(seen: Timeline) -> None:
    """Remember a timeline."""
    _newest[seen.system] = max(seen.number, _newest.get(seen.system, 0))


def is_known(seen: Timeline) -> bool:
    """Whether the process has seen any timeline of that system."""
    return seen.system in _newest


def is_old(seen: Timeline) -> bool:
    """Whether the process has seen a newer one."""
    return seen.number < _newest.get(seen.system, 0)


def timeline(conn: "psycopg.Connection[Any]") -> Timeline | None:
    """The server's, in a transaction that is rolled back; None of a standby, and of one that does not tell."""
    try:
        found = conn.execute(_QUESTION).fetchone()
    except _UNTOLD:
        found = None
    if not conn.autocommit:
        conn.rollback()
    return None if found is None else Timeline(*found)


def hosts(options: Mapping[str, Any]) -> list[Host]:
    """The hosts in a connection's options, in their order."""
    names = str(options.get("host", "")).split(",")
    ports = [port or _PORT for port in str(options.get("port", "")).split(",")]
    return list(zip(names, ports if len(ports) == len(names) else ports[:1] * len(names), strict=True))


def to_hosts(given: Sequence[Host]) -> dict[str, str]:
    """The options that lead to these hosts, in this order."""
    return {"host": ",".join(host for host, _ in given), "port": ",".join(port for _, port in given)}


def ask(others: Iterable[Host], arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Remember the timelines of those hosts that take writes; what does not answer within seconds is passed over."""
    for host in others:
        there = {**options, **to_hosts([host]), "target_session_attrs": "any", "connect_timeout": ASKED}
        with suppress(psycopg.Error), psycopg.connect(*arguments, **there, autocommit=True) as conn:
            if (found := timeline(conn)) is not None:
                note(found)
