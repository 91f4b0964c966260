"""A bundle: a tenant's entries as JSON Lines (LEDGER §5), written from the ledger and verified without it.

A bundle is trusted no more than the ledger. The plan of its verification:

 (1) the first line is that of a bundle, and names the tenant;

and for every line after it

 (2) it is JSON in the form of LEDGER §5, no longer than the longest line that is exported;
 (3) the envelope is RFC 8785 JSON with exactly the keys of LEDGER §1, of that tenant;
 (4) each chain occurs once, from its first entry, without a gap, and every entry names the hash of the one before;
 (5) the hash is SHA-256(0x00 || envelope);
 (6) the content is present, and the envelope commits to it;
 (7) the attributes are RFC 8785 JSON, and have the same subject throughout a chain.

Only a checkpoint could show that no chain is missing, or shortened at its end.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

import orjson

from pipeline.chain import entry_hash, stored_envelope
from pipeline.errors import Unreadable
from pipeline.formats.cloudevents import MAX_VALUE
from pipeline.ledger.checks import Finding, Thread, check_content, parse, read_attributes, read_envelope
from schemas.fault import Fault, Verified
from schemas.ledger_rows import StoredEntry

VERSION: Final = "waxseal/bundle/v1"
MAX_LINE: Final = 96 * 1024 * 1024  # bytes: the largest body in base64, with the rest of its line
STEP: Final = 1000  # lines between two calls of `progress`

_ENTRY: Final = {"envelope", "hash", "content"}
_CONTENT: Final = {"attributes", "salt", "body"}
_SEALED: Final = ({"checkpoint"}, {"proof"})


def header_line(tenant: str, exported_at: datetime) -> bytes:
    """The first line of a bundle."""
    at = exported_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return _line({"v": VERSION, "tenant": tenant, "exported_at": at})


def entry_line(entry: StoredEntry) -> bytes:
    """The line of one entry exactly as stored, even if it was altered. Missing content is null."""
    content = None
    if entry.attributes is not None and entry.salt is not None and entry.body is not None:
        content = {"attributes": _base64(entry.attributes), "salt": entry.salt.hex(), "body": _base64(entry.body)}
    return _line({"envelope": _base64(stored_envelope(entry)), "hash": entry.hash.hex(), "content": content})


def verify_bundle(
    stream: IO[bytes], vkey: str | None, report: Callable[[Fault], None], progress: Callable[[int], None] = lambda _: None
) -> Verified:
    """Checks a bundle and reports every fault. Needs nothing but its bytes; holds one line at a time, and the id of each chain.

    `progress` gets the number of bytes read. Raises `Unreadable` when the first line is not that of a bundle.
    """
    first = stream.readline(MAX_LINE)
    if not first:
        return Verified(0, 0, 0)
    verifier = _Verifier(_tenant(first), report)
    for number, line in enumerate(_lines(stream), 2):
        verifier.line(number, line)
        if number % STEP == 0:
            progress(stream.tell())
    if vkey is not None and not verifier.sealed:
        verifier.missing_checkpoint()
    return verifier.verified()


def _tenant(line: bytes) -> str:
    """(1) the first line is that of a bundle, and names the tenant."""
    try:
        header = _parsed(line)
    except Unreadable:
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("tenant"), str):
        raise Unreadable("this is not a Waxseal bundle: the first line does not say so")
    if header.get("v") != VERSION:
        raise Unreadable(f"this is a bundle of version {str(header.get('v'))[:80]!r}, and this program reads {VERSION}")
    return str(header["tenant"])


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Every line; None for a line that is too long, the rest of which is skipped."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE)
            yield None
        else:
            yield line


class _Verifier:
    def __init__(self, tenant: str, report: Callable[[Fault], None]) -> None:
        self.sealed = False
        self._tenant = tenant
        self._report = report
        self._seen: set[bytes] = set()
        self._chain: str | None = None
        self._subject: str | None = None
        self._thread = Thread()
        self._entries = self._faults = 0

    def verified(self) -> Verified:
        return Verified(self._entries, len(self._seen), self._faults)

    def line(self, number: int, line: bytes | None) -> None:
        try:
            members = _members(line)  # (2)
        except Unreadable as error:
            self._found(None, [("line", f"line {number}: {error}")])
            return
        if members.keys() in _SEALED:
            self.sealed = True
            self._found(None, [("checkpoint", f"line {number}: checkpoints and proofs cannot be verified by this version")])
            return
        self._entries += 1
        try:
            self._entry(number, _decoded(members["envelope"], "envelope"), members)
        except Unreadable as error:
            self._found(None, [("line", f"line {number}: {error}")])

    def missing_checkpoint(self) -> None:
        """Reports the fault of a bundle without a checkpoint, when a key was given to check one."""
        self._faults += 1
        detail = "a key was given, but the bundle holds no checkpoint: nothing shows whose it is, or that it is complete"
        self._report(Fault(self._tenant[:MAX_VALUE], None, None, None, "checkpoint", detail))

    def _entry(self, number: int, raw: bytes, members: Mapping[str, Any]) -> None:
        computed = entry_hash(raw)
        try:
            envelope = read_envelope(raw)  # (3)
        except Unreadable as error:
            self._thread.skip(computed)
            self._found(None, [("envelope", f"line {number}: {error}")])
            return
        seq: int = envelope["seq"]
        self._found(seq, self._follow(envelope, computed))
        if members["hash"] != computed.hex():  # (5)
            self._found(seq, [("hash", f"hash is {str(members['hash'])[:80]}; the envelope hashes to {computed.hex()}")])
        self._found(seq, self._content(envelope["pc"], members["content"], first=seq == 0))

    def _follow(self, envelope: Mapping[str, Any], computed: bytes) -> Iterator[Finding]:
        """(4) each chain occurs once, from its first entry, without a gap."""
        if envelope["chain"] != self._chain:
            self._chain, self._subject, self._thread = envelope["chain"], None, Thread()
            key = bytes.fromhex(envelope["chain"])
            if key in self._seen:
                yield "repeated", "this chain has entries further up, with other chains' entries in between"
            self._seen.add(key)
        if envelope["tenant"] != self._tenant:
            yield "column", f"the bundle is of tenant {self._tenant!r:.80}; the envelope says {envelope['tenant']!r:.80}"
        yield from self._thread.follow(envelope["seq"], envelope["prev"], computed)

    def _content(self, pc: str, content: Any, *, first: bool) -> Iterator[Finding]:
        if content is None:
            yield "content_missing", "it is missing, and no erasure authorises that"
            return
        attributes = _decoded(content["attributes"], "attributes")
        body, salt = _decoded(content["body"], "body"), _salt(content["salt"])
        yield from check_content(pc, attributes, body, salt)  # (6)
        try:
            subject = read_attributes(attributes)["subject"]  # (7)
        except Unreadable as error:
            yield "attributes", str(error)
            return
        if self._subject is None or first:
            self._subject = subject
        elif subject != self._subject:
            yield "subject", f"the entry is about {subject!r:.200}, its chain about {self._subject!r:.200}"

    def _found(self, seq: int | None, findings: "Iterator[Finding] | list[Finding]") -> None:
        for kind, detail in findings:
            self._faults += 1
            chain = self._chain if seq is not None else None
            subject = None if self._subject is None else self._subject[:MAX_VALUE]
            self._report(Fault(self._tenant[:MAX_VALUE], subject, chain, seq, kind, detail))


def _members(line: bytes | None) -> Mapping[str, Any]:
    """(2) it is JSON in the form of LEDGER §5."""
    if line is None:
        raise Unreadable(f"it is longer than {MAX_LINE} bytes")
    if line.isspace():
        raise Unreadable("it is blank, which no line of a bundle is")
    members = _parsed(line)
    if not isinstance(members, dict) or members.keys() not in (_ENTRY, *_SEALED):
        raise Unreadable("it is neither an entry nor a checkpoint nor a proof")
    content = members.get("content")
    if content is not None and (not isinstance(content, dict) or content.keys() != _CONTENT):
        raise Unreadable("its content does not have exactly the members attributes, salt and body")
    return members


def _parsed(line: bytes) -> Any:
    members = parse(line)
    try:
        if _line(members) != line:
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


def _decoded(text: Any, name: str) -> bytes:
    """The bytes of canonical base64. Other texts decode to the same bytes, and would be an alteration that goes unnoticed."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Unreadable(f"{name} is not base64") from None
    if _base64(raw) != text:
        raise Unreadable(f"{name} is not base64 in its canonical form")
    return raw


def _salt(text: Any) -> bytes:
    try:
        salt = bytes.fromhex(text)
    except (TypeError, ValueError):
        salt = b""
    if len(salt) != 32 or salt.hex() != text:
        raise Unreadable("salt is not 64 lower-case hexadecimal digits")
    return salt


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _line(members: Any) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
