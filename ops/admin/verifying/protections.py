"""Finds what is missing or disabled of the database's own protections of the ledger: while it is, `verify` alone guards it.

What must be there follows from the migrations, so that it is written down once. A trigger whose function was replaced guards
nothing either, so its body is compared too. `waxseal doctor` shows the same, with what mends it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from ops.admin.verifying import role_differences
from ops.admin.verifying.role_rights import COLUMNS, GRANTS
from ops.migrations import versions
from pipeline.chain import envelope
from pipeline.store.ledger import protections
from schemas.ledger.fault import Fault

CONSTRAINTS: Final[Mapping[tuple[str, str], str]] = {  # and what its definition must hold
    ("entry", "entry_pkey"): "PRIMARY KEY (chain_id, seq)",
    ("entry", "entry_fingerprint_key"): "UNIQUE (fingerprint)",
    ("entry", "entry_hash"): "sha256(('\\x00'::bytea || entry_envelope(chain_id, seq, prev_hash, tenant, at, kind, pc)))",
    ("entry", "entry_first"): "prev_hash IS NULL",
    ("entry", "entry_seq_check"): "(seq >= 0) AND (seq <= '9007199254740991'::bigint)",
    ("entry", "entry_at_check"): "(at >= '-9007199254740991'::bigint) AND (at <= '9007199254740991'::bigint)",
    ("entry", "entry_pc_check"): "octet_length(pc) = 32",
    ("entry", "entry_tenant_check"): "translate(tenant, 'abcdefghijklmnopqrstuvwxyz0123456789-'::text, ''::text) = ''::text",
    ("entry", "entry_kind_check"): "(kind = 'event'::text) OR (kind ~ '^[a-z]{1,32}$'::text)",
    ("content", "content_pkey"): "PRIMARY KEY (chain_id, seq)",
    ("chain", "chain_pkey"): "PRIMARY KEY (key)",
    ("chain", "chain_chain_id_key"): "UNIQUE (chain_id)",
    ("leaf", "leaf_pkey"): 'PRIMARY KEY (log_id, "position")',
    ("leaf", "leaf_once"): "UNIQUE (chain_id, seq, log_id)",
    ("checkpoint", "checkpoint_pkey"): "PRIMARY KEY (log_id, size)",
    ("anchor", "anchor_log_id_size_fkey"): "FOREIGN KEY (log_id, size) REFERENCES checkpoint",
    ("log", "log_tenant_incarnation_key"): "UNIQUE (tenant, incarnation)",
    ("log", "log_frontier"): "octet_length(frontier) = (32 * bit_count(int8send(size)))",
}

_LOOPED = ("leaf", "checkpoint", "anchor")  # whose triggers are made in a loop
_CHAIN = "00112233445566778899aabbccddeeff"


@dataclass(frozen=True, slots=True)
class Gap:
    """A trigger, constraint or function that is not as the migrations made it; `mend`: the statement that enables it again."""

    detail: str
    mend: str = ""


def missing(conn: Connection) -> Iterator[Fault]:
    """A fault for each protection that is missing, disabled or altered, and for each right that evades them."""
    for detail in (*(gap.detail for gap in gaps(conn)), *_rights(conn)):
        yield Fault(None, None, None, None, "protection", detail)


def gaps(conn: Connection) -> Iterator[Gap]:
    """Each trigger, constraint and function that is missing, disabled or altered."""
    yield from _triggers(conn)
    yield from _constraints(conn)
    yield from _envelopes(conn)


def _triggers(conn: Connection) -> Iterator[Gap]:
    found = protections.triggers(conn)
    for (table, name), (function, body) in sorted(triggers().items()):
        trigger = found.get((table, name))
        if trigger is None:
            yield Gap(f"the trigger {name} of {table} is missing")
        elif not trigger.always:
            enable = f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"
            yield Gap(f"the trigger {name} of {table} is not always enabled", enable)
        elif trigger.function != function or trigger.body != body:
            yield Gap(f"the trigger {name} of {table} does not run {function}() as the migrations made it")


def _constraints(conn: Connection) -> Iterator[Gap]:
    found = protections.constraints(conn)
    for (table, name), holds in CONSTRAINTS.items():
        if (table, name) not in found:
            yield Gap(f"the constraint {name} of {table} is missing, not valid, or its index is not in use")
        elif holds not in found[table, name]:
            yield Gap(f"the constraint {name} of {table} is not as the migrations made it")


def _rights(conn: Connection) -> Iterator[str]:
    granted = [
        (role, thing, right)
        for rights in (GRANTS, COLUMNS)
        for role, things in rights.items()
        for thing, named in things.items()
        for right in named.split()
    ]
    for role, thing, right in protections.rights(conn, granted):
        yield f"{role} may {right} {thing}"
    yield from (each.detail for each in role_differences.of_roles(conn) if each.extra)


def _envelopes(conn: Connection) -> Iterator[Gap]:
    ours = (
        envelope(_CHAIN, 7, b"\x01", "acme", 1700000000000001, "event", b"\x02"),
        envelope(_CHAIN, 0, None, "a-b", -1, "heads", None),
    )
    if protections.sample_envelopes(conn) != ours:
        yield Gap("the function entry_envelope is not as the migrations made it")


@cache
def triggers() -> Mapping[tuple[str, str], tuple[str, str]]:
    """The triggers on the ledger's tables that the migrations enable always: the function of each, and its body."""
    functions: dict[str, str] = {}
    triggers: dict[tuple[str, str], str] = {}
    always: set[tuple[str, str]] = set()
    for path in sorted(Path(versions.__path__[0]).glob("*.sql")):
        for statement, body in _statements(path.read_text(encoding="utf-8")):
            words = statement.replace("(", " (").split()
            match words:
                case ["CREATE", "FUNCTION", name, *_] | ["CREATE", "OR", "REPLACE", "FUNCTION", name, *_]:
                    functions[name] = body
                case ["CREATE", "TRIGGER", name, *_]:
                    triggers[words[words.index("ON") + 1], name] = words[words.index("FUNCTION") + 1]
                case ["ALTER", "TABLE", table, "ENABLE", "ALWAYS", "TRIGGER", name]:
                    always.add((table, name))
                case ["DROP", "TRIGGER", name, "ON", table]:
                    triggers.pop((table, name), None)
    for table in _LOOPED:
        triggers |= {(table, "append_only"): "refuse", (table, "append_only_whole"): "refuse"}
        always |= {(table, "append_only"), (table, "append_only_whole")}
    return {
        place: (function, functions[function])
        for place, function in triggers.items()
        if place in always and place[0] in protections.TABLES
    }


def _statements(script: str) -> Iterator[tuple[str, str]]:
    """Every statement, without comments and without what is quoted by dollars; and that."""
    pieces = script.split("$$")
    body, begun = "", ""
    for number, piece in enumerate(pieces):
        if number % 2:
            body = piece
            continue
        plain = "\n".join(line.partition("--")[0] for line in piece.splitlines())
        first, *others = plain.split(";")
        yield from ((each, body) for each in [begun + first, *others[:-1]] if others)
        begun = others[-1] if others else begun + first
