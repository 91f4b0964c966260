"""Checks of an entry's bytes, shared by the verifiers of the ledger and of bundles. Pure and offline."""

import re
from collections.abc import Collection, Iterator, Mapping
from hmac import compare_digest
from itertools import islice
from typing import Any, Final

import orjson

from pipeline.chain import VERSION, commitment
from pipeline.errors import Unreadable
from pipeline.formats.bounded_json import TooManyValues, check_size
from schemas.event import REQUIRED
from schemas.ledger.fault import FaultKind

Finding = tuple[FaultKind, str]

#: The kinds of entries that this version knows; all have content.
KINDS: Final = ("event", "erasure", "heads", "origin")

_KEYS: Final = frozenset({"v", "hash", "tenant", "chain", "seq", "prev", "at", "kind", "pc"})
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_CHAIN: Final = re.compile(r"[0-9a-f]{32}")
_NAME: Final = re.compile(r"[a-z0-9]+")
SAFE: Final = 2**53  # integers below are exact in every JSON parser
_SHOWN: Final = 3  # hashes that a finding shows
_REQUIRED: Final = frozenset(REQUIRED)


def parse(raw: bytes) -> Any:
    """The JSON value in `raw`. Raises `Unreadable`, without parsing it, when it would take far more memory than its bytes."""
    try:
        check_size(raw)
        return orjson.loads(raw)
    except TooManyValues:
        raise Unreadable("it holds too many values to be read, for its size") from None
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"it is not JSON: {error}") from None


def read_envelope(raw: bytes) -> Mapping[str, Any]:
    """The members of an envelope. Raises `Unreadable` unless it conforms to LEDGER §1, in RFC 8785 form."""
    members = _json(raw)
    if not isinstance(members, dict) or members.keys() != _KEYS:
        raise Unreadable("it does not have exactly the keys " + " ".join(sorted(_KEYS)))
    if members["v"] != VERSION or members["hash"] != "sha-256" or members["kind"] not in KINDS:
        what = "/".join(str(members[name])[:40] for name in ("v", "hash", "kind"))
        raise Unreadable(f"version, hash or kind is not known to this program: {what}")
    for name, holds in _VALUES.items():
        if not holds(members[name]):
            raise Unreadable(f"{name} is not what it must be: {str(members[name])[:80]}")
    return members


def read_attributes(raw: bytes) -> Mapping[str, str]:
    """The attributes of an event. Raises `Unreadable` unless they conform to LEDGER §1, in RFC 8785 form."""
    attributes = _json(raw)
    if not isinstance(attributes, dict):
        raise Unreadable("it is not a JSON object")
    check_names(attributes)
    for name, value in attributes.items():
        if not isinstance(value, str):
            raise Unreadable(f"{name[:80]!r} is not a string")
    return attributes


def check_names(names: Collection[str]) -> None:
    """Raises `Unreadable` unless these are names that attributes may have, and all that they must have."""
    if not _REQUIRED.issubset(names):
        raise Unreadable("one of these is missing: " + " ".join(REQUIRED))
    for name in names:
        if not _NAME.fullmatch(name):
            raise Unreadable(f"{name[:80]!r} is not a lower-case name")


def check_content(pc: str, attributes: bytes, body: bytes, salt: bytes) -> Iterator[Finding]:
    """Finds content that does not match the commitment `pc`."""
    if not compare_digest(commitment(salt, attributes, body).hex(), pc):
        yield "content_altered", "attributes, body or salt are not what the envelope commits to"


class Thread:
    """Checks the numbers and links of one chain, from its first entry on."""

    def __init__(self, seq: int = -1, entry_hash: bytes | None = None) -> None:
        """`seq` and `entry_hash` of the last entry that was read; -1 and None before the first."""
        self.seq = seq
        self.hash = entry_hash
        self._here: set[str | None] = {
            None if entry_hash is None else entry_hash.hex()
        }  # hashes of the entries with the number `seq`; several in a fork
        self._before: set[str | None] | None = None  # those with the number before; None if missing

    def follow(self, seq: int, prev: str | None, entry_hash: bytes) -> Iterator[Finding]:
        """Checks the next entry, given its number, the previous hash that it names, and its own computed hash."""
        if seq == self.seq:
            yield "repeated", f"number {seq} is there more than once"
        elif seq == self.seq + 1:
            self._before, self._here = self._here, set()
        else:
            yield "gap", f"{_entries(self.seq + 1, seq - 1)} missing" if seq > self.seq else f"it comes after {self.seq}"
            self._before, self._here = None, set()
        if (prev is None) != (seq == 0):
            yield "link", "only the first entry has nothing before it" if seq else "the first entry names one before it"
        elif self._before is not None and prev not in self._before:
            yield "link", f"it follows {prev}; the entry before is {_hashes(self._before)}"
        self._here.add(entry_hash.hex())
        self.seq, self.hash = seq, entry_hash

    def skip(self, entry_hash: bytes) -> None:
        """Counts an unreadable entry as the next one."""
        self.seq += 1
        self.hash = entry_hash
        self._before, self._here = self._here, {entry_hash.hex()}


def _hashes(hashes: Collection[str | None]) -> str:
    """Some of the hashes: a fork may have any number of entries with the same number."""
    more = len(hashes) - _SHOWN
    return " or ".join(map(str, islice(hashes, _SHOWN))) + (f" or one of {more} more" if more > 0 else "")


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _json(raw: bytes) -> Any:
    members = parse(raw)
    try:
        if orjson.dumps(members, option=orjson.OPT_SORT_KEYS) == raw:
            return members
    except (orjson.JSONEncodeError, RecursionError):
        pass
    raise Unreadable("its bytes are not in RFC 8785 form")


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


_VALUES: Final = {
    "tenant": lambda value: isinstance(value, str) and value != "",
    "chain": lambda value: isinstance(value, str) and _CHAIN.fullmatch(value) is not None,
    "seq": lambda value: type(value) is int and 0 <= value < SAFE,
    "prev": lambda value: value is None or _is_hash(value),
    "at": lambda value: type(value) is int and abs(value) < SAFE,
    "pc": _is_hash,
}
