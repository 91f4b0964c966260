"""Verifies that the ledger is as it was written, by a numbered argument.

Nothing stored is trusted, neither columns nor heads nor hashes: only what follows from the envelopes' bytes. For every chain

 (1) its row exists, and its key is that of its tenant and subject;

and for every entry of it, in order,

 (2) the stored hash is SHA-256(0x00 || envelope), the envelope being made of the entry's columns;
 (3) the envelope is RFC 8785 JSON with exactly the keys of LEDGER §1;
 (4) its number is one more than the one before, and `prev` is the hash of the entry before;
 (5) its chain's tenant agrees with the envelope;
 (6) the content exists, its body in the row or in the blob store, and the envelope commits to it;
 (7) the attributes are RFC 8785 JSON, and the content's columns and the chain's subject agree with them;
 (8) the fingerprint is that of its tenant's key, source, origin and id, or, as earlier versions made it, without the origin;

and at the end of the chain

 (9) the chain's row names the last entry and its hash.

Finally, over all chains,

(10) there is no content without an entry.

This finds every edit that leaves a contradiction. If the end of a chain is cut off and its head moved back, or a whole chain
is deleted with its row, there is no contradiction: only a checkpoint kept elsewhere shows those.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection

from pipeline.chain import entry_hash, stored_envelope
from pipeline.dedupe import chain_key, fingerprint, identity
from pipeline.errors import BlobLost, Rejected, Unreadable
from pipeline.formats.cloudevents import instant
from pipeline.ledger.checks import Finding, Thread, check_content, read_attributes, read_envelope
from pipeline.store.copy_binary import timestamp
from pipeline.store.ledger import scan
from pipeline.store.ledger.scan import Scope
from schemas.fault import Fault, Verified
from schemas.ledger_rows import StoredChain, StoredEntry

STEP: Final = 1000  # entries between two calls of `progress`

Keys = Mapping[str, bytes]
Fetch = Callable[[str, str], bytes]  # (tenant, reference) -> the body; raises `BlobLost` if it is missing or altered
Report = Callable[[Fault], None]
Progress = Callable[[int], None]


def verify(
    conn: Connection, scope: Scope, keys: Keys | None, fetch: Fetch, report: Report, progress: Progress = lambda _: None
) -> Verified:
    """Checks all of `scope` and reports every fault: it never stops at the first.

    `conn` must be in one REPEATABLE READ transaction, so that concurrent appends do not look like faults. Without the tenants'
    `keys`, the chain keys and fingerprints of steps (1) and (8) are not checked. Memory is bounded. Any other exception than
    `BlobLost` from `fetch` is passed on, and there is no verdict.
    """
    verifier = _Verifier(keys, fetch, report, progress)
    rows = scan.chains(conn, scope)
    row = next(rows, None)
    for chain_id, entries in groupby(scan.entries(conn, scope), _position):
        while row is not None and _position(row) < chain_id:
            verifier.chain(row, ())
            row = next(rows, None)
        if row is not None and _position(row) == chain_id:
            verifier.chain(row, entries)
            row = next(rows, None)
        else:
            verifier.chain(None, entries)
    while row is not None:
        verifier.chain(row, ())
        row = next(rows, None)
    verifier.strays(scan.stray_content(conn, scope))
    return verifier.verified()


def _position(row: StoredChain | StoredEntry) -> bytes:
    """A row's position in the order of chain ids; one without an id comes last, as NULL does in Postgres."""
    return row.chain_id or b"\xff" * 17


class _Verifier:
    def __init__(self, keys: Keys | None, fetch: Fetch, report: Report, progress: Progress) -> None:
        self._keys = keys
        self._fetch = fetch
        self._report = report
        self._progress = progress
        self._entries = self._chains = self._faults = 0

    def verified(self) -> Verified:
        return Verified(self._entries, self._chains, self._faults)

    def chain(self, row: StoredChain | None, entries: Iterable[StoredEntry]) -> None:
        self._chains += 1
        thread = Thread()
        for entry in entries:
            if row is None and thread.seq < 0:  # (1)
                self._found(row, entry, [("chain_row_missing", "the entries exist, but not the row of their chain")])
            self._found(row, entry, self._entry(row, entry, thread))
            self._entries += 1
            if self._entries % STEP == 0:
                self._progress(self._entries)
        if row is not None:
            self._found(row, None, (*self._row(row), *_head(row, thread)))

    def strays(self, strays: Iterable[tuple[bytes, int, str]]) -> None:
        """(10) there is no content without an entry."""
        for chain_id, seq, subject in strays:
            self._faults += 1
            detail = "there is content, but no entry that it belongs to"
            self._report(Fault(None, subject, _hex(chain_id), seq, "content_without_entry", detail))

    def _found(self, row: StoredChain | None, entry: StoredEntry | None, findings: Iterable[Finding]) -> None:
        for kind, detail in findings:
            self._faults += 1
            where = row or entry
            assert where is not None
            seq = None if entry is None else entry.seq
            self._report(Fault(where.tenant, where.subject, _hex(where.chain_id), seq, kind, detail))

    def _row(self, row: StoredChain) -> Iterator[Finding]:
        """(1) the row's key is that of its tenant and subject."""
        if self._keys is None:
            return
        key = self._keys.get(row.tenant)
        if key is None:
            yield "chain_row", f"there is no tenant {row.tenant}"
        elif row.key != chain_key(key, row.subject or ""):
            yield "chain_row", "its key is not that of its tenant and subject"

    def _entry(self, row: StoredChain | None, entry: StoredEntry, thread: Thread) -> Iterator[Finding]:
        raw = _envelope(entry)
        computed = entry_hash(raw)
        if entry.hash != computed:  # (2)
            yield "hash", f"hash is {_hex(entry.hash)}; the envelope hashes to {computed.hex()}"
        try:
            envelope = read_envelope(raw)  # (3)
        except Unreadable as error:
            yield "envelope", str(error)
            thread.skip(computed)
            return
        yield from thread.follow(envelope["seq"], envelope["prev"], computed)  # (4)
        if row is not None and row.tenant != envelope["tenant"]:  # (5)
            yield "subject", f"the entry is of tenant {envelope['tenant']:.80}, its chain of {row.tenant}"
        yield from self._content(row, entry, envelope)

    def _content(self, row: StoredChain | None, entry: StoredEntry, envelope: Mapping[str, Any]) -> Iterator[Finding]:
        if entry.attributes is None or entry.salt is None or (entry.body is None and entry.blob is None):
            yield "content_missing", "it is missing, and no erasure authorises that"
            return
        if entry.body is not None and entry.blob is not None:
            yield "content_column", f"blob is {entry.blob:.80}, but the body is here"
        try:
            body = self._fetch(envelope["tenant"], entry.blob or "") if entry.body is None else entry.body
            yield from check_content(envelope["pc"], entry.attributes, body, entry.salt)  # (6)
        except BlobLost as error:
            yield error.kind, str(error)
        try:
            attributes = read_attributes(entry.attributes)  # (7)
        except Unreadable as error:
            yield "attributes", str(error)
            return
        yield from _copies(entry, attributes)
        if row is not None and row.subject != attributes["subject"]:
            yield "subject", f"the entry is about {attributes['subject']!r:.200}, its chain about {row.subject!r:.200}"
        yield from self._fingerprint(entry, envelope["tenant"], attributes)

    def _fingerprint(self, entry: StoredEntry, tenant: str, attributes: Mapping[str, str]) -> Iterator[Finding]:
        """(8) the fingerprint is that of its tenant's key, source, origin and id, or without the origin."""
        if self._keys is None:
            return
        key = self._keys.get(tenant)
        if key is None:
            yield "fingerprint", f"there is no tenant {tenant:.80}"
        elif entry.fingerprint not in (identity(key, attributes), fingerprint(key, attributes["source"], attributes["id"])):
            yield "fingerprint", "it is not that of the entry's tenant, source, origin and id"


def _envelope(entry: StoredEntry) -> bytes:
    """The envelope that the columns make; empty if one that it needs is NULL."""
    try:
        return stored_envelope(entry)
    except (AttributeError, TypeError):
        return b""


def _copies(entry: StoredEntry, attributes: Mapping[str, str]) -> Iterator[Finding]:
    """(7) the content's columns agree with the attributes."""
    for name in ("source", "type", "subject"):
        if getattr(entry, name) != attributes[name]:
            yield "content_column", f"{name} is {getattr(entry, name)!r:.200}; the attributes say {attributes[name]!r:.200}"
    try:
        if entry.time != timestamp(instant(attributes["time"])):
            yield "content_column", f"time is not the attributes' {attributes['time']:.80}"
    except Rejected as error:
        yield "attributes", error.detail


def _head(row: StoredChain, thread: Thread) -> Iterator[Finding]:
    """(9) the chain's row names the last entry and its hash."""
    if thread.seq < 0:
        yield "entries_missing", f"the chain's row exists, but none of its entries 0 to {row.seq}"
    elif row.seq != thread.seq:
        yield "head", f"the chain's row ends at {row.seq}, its entries at {thread.seq}"
    elif row.hash != thread.hash:
        yield "head", "the chain's hash is not that of its last entry"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
