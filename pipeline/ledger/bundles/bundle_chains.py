"""Checks the entries of a bundle, chain by chain. Pure and offline; see `bundle_verify` for the plan.

Kept for each entry are the 32 bytes of its hash, for the proofs that follow all entries; of contents, only which are missing.
"""

from collections.abc import Callable, Iterable, Iterator

import orjson

from pipeline.chain import entry_hash
from pipeline.errors import Rejected, Unreadable
from pipeline.formats.cloudevents import MAX_VALUE, instant
from pipeline.ledger.bundles.bundle_lines import BundledEntry, Content, read_content
from pipeline.ledger.bundles.contents import Contents
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.checks import Finding, Thread, check_content, parse, read_attributes, read_envelope
from pipeline.ledger.erasures import read_erasure
from pipeline.ledger.merkle import HASH_BYTES
from schemas.ledger.fault import Fault

Report = Callable[[Fault], None]


class Chains:
    """The chains of a bundle. After `end`, it knows every entry's hash."""

    def __init__(self, tenant: str, report: Report) -> None:
        self.entries = 0
        self.faults = 0
        self.origins: dict[tuple[bytes, int], Checkpoint] = {}  # what entries of kind "origin" say of the log before theirs
        self._tenant = tenant
        self._report = report
        self._hashes: dict[bytes, bytearray] = {}  # of the entries from the first on, as far as none is missing
        self._subjects: dict[bytes, str | None] = {}
        self._chain: str | None = None
        self._subject: str | None = None
        self._thread = Thread()
        self._contents = Contents()

    @property
    def ids(self) -> Iterable[bytes]:
        """The ids of all chains, in the bundle's order."""
        return self._hashes

    def length(self, chain: bytes) -> int:
        """The number of entries of a chain from the first on, as far as none is missing."""
        return len(self._hashes.get(chain, b"")) // HASH_BYTES

    def hash_at(self, chain: bytes, seq: int) -> bytes | None:
        """The hash of an entry; None if the bundle does not hold it, or holds it after a gap."""
        return bytes(self._hashes[chain][seq * HASH_BYTES :][:HASH_BYTES]) if seq < self.length(chain) else None

    def subject(self, chain: bytes) -> str | None:
        """What a chain is about, as far as its content says."""
        return self._subjects.get(chain)

    def add(self, number: int, line: BundledEntry) -> None:
        """Checks the next entry, which is on line `number`."""
        self.entries += 1
        computed = entry_hash(line.envelope)
        try:
            envelope = read_envelope(line.envelope)  # (3)
        except Unreadable as error:
            self._thread.skip(computed)
            self._found(None, [("envelope", f"line {number}: {error}")])
            return
        seq: int = envelope["seq"]
        if envelope["chain"] != self._chain:
            self._begin(envelope["chain"], seq)
        if envelope["tenant"] != self._tenant:
            detail = f"the bundle is of tenant {self._tenant!r:.80}; the envelope says {envelope['tenant']!r:.80}"
            self._found(seq, [("column", detail)])
        self._found(seq, self._thread.follow(seq, envelope["prev"], computed))  # (4)
        self._keep(seq, computed)
        if line.hash != computed.hex():  # (5)
            self._found(seq, [("hash", f"hash is {str(line.hash)[:80]}; the envelope hashes to {computed.hex()}")])
        try:
            content = None if line.content is None else read_content(line.content)
        except Unreadable as error:
            self._found(None, [("line", f"line {number}: {error}")])
            return
        self._found(seq, self._content(seq, envelope["kind"], envelope["pc"], content))

    def end(self) -> None:
        """Ends the last chain. (8) no content is missing but what its chain's erasures list, and none of that is there."""
        if self._chain is None:
            return
        self._subjects[bytes.fromhex(self._chain)] = self._subject
        for seq in self._contents.missing():
            self._found(seq, [("content_missing", "it is missing, and no erasure authorises that")])
        for seq in self._contents.left():
            self._found(seq, [("content_erased", "it is there, although an erasure of its chain lists it")])

    def _begin(self, chain: str, seq: int) -> None:
        self.end()
        self._chain, self._subject, self._thread = chain, None, Thread()
        self._contents = Contents()
        key = bytes.fromhex(chain)
        if key in self._hashes:
            self._found(seq, [("repeated", "this chain has entries further up, with other chains' entries in between")])
        self._hashes.setdefault(key, bytearray())

    def _keep(self, seq: int, computed: bytes) -> None:
        assert self._chain is not None
        hashes = self._hashes[bytes.fromhex(self._chain)]
        if seq * HASH_BYTES == len(hashes):
            hashes += computed

    def _content(self, seq: int, kind: str, pc: str, content: Content | None) -> Iterator[Finding]:
        if content is None:
            if kind == "event":
                self._contents.add(seq, present=False)
            else:
                yield "content_missing", f"it is missing, and no entry of kind {kind} is ever erased"
            return
        self._contents.add(seq, present=True)
        yield from check_content(pc, content.attributes, content.body, content.salt)  # (6)
        try:
            subject = _subject_of(content.attributes)  # (7)
        except Unreadable as error:
            yield "attributes", str(error)
            return
        if kind == "origin":
            yield from self._origin(seq, content.body)
        if kind == "erasure":
            yield from self._erasure(seq, subject, content.body)
        elif self._subject is None or seq == 0:
            self._subject = subject
        elif subject != self._subject:
            yield "subject", f"the entry is about {subject!r:.200}, its chain about {self._subject!r:.200}"

    def _erasure(self, seq: int, subject: str, body: bytes) -> Iterator[Finding]:
        if subject != self._chain:
            yield "subject", f"it erases in chain {subject:.80}, and stands in another"
            return
        try:
            self._contents.erase(read_erasure(body, seq).spans)
        except Unreadable as error:
            yield "erasure", str(error)

    def _origin(self, seq: int, body: bytes) -> Iterator[Finding]:
        assert self._chain is not None
        try:
            self.origins[bytes.fromhex(self._chain), seq] = read_origin(body)
        except Unreadable as error:
            yield "origin", str(error)

    def _found(self, seq: int | None, findings: Iterable[Finding]) -> None:
        for kind, detail in findings:
            self.faults += 1
            chain = self._chain if seq is not None else None
            subject = None if self._subject is None else self._subject[:MAX_VALUE]
            self._report(Fault(self._tenant[:MAX_VALUE], subject, chain, seq, kind, detail))


def read_origin(body: bytes) -> Checkpoint:
    """What an entry of kind "origin" says of the log that its own goes on from (LEDGER §3). Raises `Unreadable`."""
    told = parse(body)
    if not isinstance(told, dict) or told.keys() != {"origin", "root", "size"}:
        raise Unreadable("its body does not name the origin, root and size of another log")
    origin, root, size = told["origin"], told["root"], told["size"]
    if not isinstance(origin, str) or type(size) is not int or not isinstance(root, str) or len(root) != 2 * HASH_BYTES:
        raise Unreadable("its body does not name the origin, root and size of another log")
    try:
        named = Checkpoint(origin, size, bytes.fromhex(root))
    except ValueError:
        raise Unreadable("its root is not hexadecimal") from None
    if orjson.dumps({"origin": origin, "root": named.root.hex(), "size": size}) != body or size < 0:
        raise Unreadable("its body is not in RFC 8785 form")
    return named


def _subject_of(raw: bytes) -> str:
    """The subject in an entry's attributes. Raises `Unreadable` unless they are those of an event."""
    attributes = read_attributes(raw)
    if not attributes["id"] or not attributes["subject"]:
        raise Unreadable("its id or subject is empty")
    if attributes["specversion"] != "1.0":
        raise Unreadable(f"its specversion is {attributes['specversion']!r:.80}, and not 1.0")
    try:
        instant(attributes["time"])
    except Rejected as error:
        raise Unreadable(error.detail) from None
    return attributes["subject"]
