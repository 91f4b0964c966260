"""Reads the lines of a bundle (LEDGER §5), of which nothing is trusted. Pure and offline."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, NamedTuple
from uuid import UUID

import orjson

from pipeline.errors import Rejected, Unreadable
from pipeline.formats.cloudevents import instant
from pipeline.ledger.bundles.bundle import VERSION, Inclusion
from pipeline.ledger.checks import parse
from pipeline.ledger.encodings import from_base64, hash_from_base64
from pipeline.ledger.heads import Member, MemberProof
from pipeline.ledger.merkle import LARGEST
from pipeline.ledger.tlog_proof import MOST_HASHES

FIRST_VERSION: Final = "waxseal/bundle/v1"  # entries only
MAX_LINE: Final = 96 * 1024 * 1024  # bytes: the largest body in base64, with the rest of its line

_HEADER: Final = {"v", "tenant", "exported_at"}
_ENTRY: Final = {"envelope", "hash", "content"}
_CONTENT: Final = {"attributes", "salt", "body"}
_INCLUSION: Final = {"chain", "seq", "index", "size", "proof"}
_HEADS: Final = {"entry", "inclusion", "members"}
_MEMBER: Final = {"chain", "seq", "hash", "index", "count", "proof"}
_CHAIN: Final = re.compile(r"[0-9a-f]{32}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Content(NamedTuple):
    """An entry's content."""

    attributes: bytes
    salt: bytes
    body: bytes


class BundledEntry(NamedTuple):
    """A line of an entry. `hash` may be anything, `content` may still be in base64 (see `read_content`)."""

    envelope: bytes
    hash: Any
    content: Mapping[str, Any] | None


class BundledHeads(NamedTuple):
    """A line of heads."""

    entry: BundledEntry
    inclusion: Inclusion
    members: list[MemberProof]


Line = BundledEntry | str | Inclusion | BundledHeads  # a text is a checkpoint


def read_header(line: bytes) -> tuple[str, str]:
    """The version and the tenant in the first line. Raises `Unreadable` for what is no bundle."""
    try:
        header = _parsed(line)
    except Unreadable:
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("tenant"), str):
        raise Unreadable("this is not a Waxseal bundle: the first line does not say so")
    if header.get("v") not in {VERSION, FIRST_VERSION}:
        said = str(header.get("v"))[:80]
        raise Unreadable(f"this is a bundle of version {said!r}, and this program reads {FIRST_VERSION} and {VERSION}")
    if header.keys() != _HEADER:
        raise Unreadable("the first line does not have exactly the members v, tenant and exported_at")
    try:
        instant(str(header["exported_at"]))
    except Rejected as error:
        raise Unreadable(f"the first line's exported_at: {error.detail}") from None
    return str(header["v"]), str(header["tenant"])


def lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Every line; None for a line that is too long, the rest of which is skipped."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE)
            yield None
        else:
            yield line


def read_line(line: bytes | None) -> Line:
    """A line after the first. Raises `Unreadable` unless it has the form of LEDGER §5."""
    if line is None:
        raise Unreadable(f"it is longer than {MAX_LINE} bytes")
    if line.isspace():
        raise Unreadable("it is blank, which no line of a bundle is")
    members = _parsed(line)
    if isinstance(members, dict):
        if members.keys() == _ENTRY:
            return _entry(members)
        if members.keys() == {"checkpoint"} and isinstance(members["checkpoint"], str):
            return members["checkpoint"]
        if members.keys() == {"inclusion"}:
            return _inclusion(members["inclusion"])
        if members.keys() == {"heads"}:
            return _heads(members["heads"])
    raise Unreadable("it is neither an entry nor a checkpoint nor an inclusion nor heads")


def read_content(content: Mapping[str, Any]) -> Content:
    """The content in an entry's line. Raises `Unreadable`."""
    attributes, body = from_base64(content["attributes"], "attributes"), from_base64(content["body"], "body")
    salt = _hex(content["salt"], _HASH, "salt is not 64 lower-case hexadecimal digits")
    return Content(attributes, salt, body)


def _entry(members: Any) -> BundledEntry:
    _require(members, _ENTRY, "an entry")
    if members["content"] is not None:
        _require(members["content"], _CONTENT, "its content")
    return BundledEntry(from_base64(members["envelope"], "envelope"), members["hash"], members["content"])


def _inclusion(members: Any) -> Inclusion:
    _require(members, _INCLUSION, "an inclusion")
    seq, index, size = (_number(members, name) for name in ("seq", "index", "size"))
    return Inclusion(_chain(members), seq, index, size, _proof(members))


def _heads(members: Any) -> BundledHeads:
    _require(members, _HEADS, "heads")
    if not isinstance(members["members"], list):
        raise Unreadable("the members of its heads are not a list")
    said = [_member(each) for each in members["members"]]
    return BundledHeads(_entry(members["entry"]), _inclusion(members["inclusion"]), said)


def _member(members: Any) -> MemberProof:
    _require(members, _MEMBER, "a member of heads")
    entry_hash = _hex(members["hash"], _HASH, "hash is not 64 lower-case hexadecimal digits")
    member = Member(UUID(bytes=_chain(members)), _number(members, "seq"), entry_hash)
    return MemberProof(member, _number(members, "index"), _number(members, "count"), _proof(members))


def _require(members: Any, names: set[str], what: str) -> None:
    if not isinstance(members, dict) or members.keys() != names:
        raise Unreadable(f"{what} does not have exactly the members " + ", ".join(sorted(names)))


def _chain(members: Mapping[str, Any]) -> bytes:
    return _hex(members["chain"], _CHAIN, "chain is not 32 lower-case hexadecimal digits")


def _hex(text: Any, form: re.Pattern[str], fault: str) -> bytes:
    if not isinstance(text, str) or not form.fullmatch(text):
        raise Unreadable(fault)
    return bytes.fromhex(text)


def _number(members: Mapping[str, Any], name: str) -> int:
    value = members[name]
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise Unreadable(f"{name} is not a number of entries")
    return value


def _proof(members: Mapping[str, Any]) -> tuple[bytes, ...]:
    hashes = members["proof"]
    if not isinstance(hashes, list) or len(hashes) > MOST_HASHES:
        raise Unreadable(f"proof is not a list of at most {MOST_HASHES} hashes")
    return tuple(hash_from_base64(each, "a hash of the proof") for each in hashes)


def _parsed(line: bytes) -> Any:
    members = parse(line)
    try:
        if orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE) != line:
            json.loads(line, object_pairs_hook=_once)
    except (orjson.JSONEncodeError, RecursionError):
        raise Unreadable("it nests deeper than any line of a bundle") from None
    except ValueError as error:
        raise Unreadable(f"it is not JSON: {error}") from None
    return members


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuses a repeated member, because parsers differ in which of the two they use."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member stands in it twice")
