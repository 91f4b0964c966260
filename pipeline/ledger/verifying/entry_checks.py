"""The slow half of the verifier: checks entries one by one, and names what is wrong with each by what its hashed bytes say."""

from collections.abc import Callable, Collection, Iterator, Mapping
from hmac import compare_digest

from pipeline.chain import commitment
from pipeline.dedupe import fingerprint, identity
from pipeline.errors import BlobLost, Rejected, Unreadable
from pipeline.formats.cloudevents import instant
from pipeline.ledger.checks import KINDS, SAFE, Finding, Thread, parse, read_attributes
from pipeline.ledger.erasures import read_erasure
from pipeline.ledger.verifying.chain_state import Chain
from pipeline.ledger.verifying.naming import hash_of, mend, mended_attributes, shown
from pipeline.store.copy_binary import timestamp
from pipeline.store.ledger.lookups import Lookups
from schemas.ledger.ledger_rows import StoredEntry

Fetch = Callable[[str, str], bytes]  # (tenant, reference) -> the body; raises `BlobLost` if it is missing or altered


class EntryChecks:
    """Checks entries with what only the database, the blob store and the tenants' list can tell."""

    def __init__(self, tenants: Collection[str], fetch: Fetch, lookups: Lookups) -> None:
        self._tenants = tenants
        self._fetch = fetch
        self._lookups = lookups

    def entry(self, chain: Chain, stored: StoredEntry) -> Iterator[Finding]:
        """Steps (2) to (8) of `pipeline.ledger.verifying.verify`. The chain moves on to this entry."""
        entry, found, moved = self._as_hashed(chain, stored)
        yield from found
        if not found:
            yield from _form(entry)
        if moved and entry.seq != chain.seq + 1:  # it does not belong here, and was told: where it does belong, it is missing
            return
        if entry.seq == chain.seq and entry.hash == chain.hash and self._lookups.copies(entry) == (1, 2):
            yield "content_repeated", "its content is there twice"
            return
        yield from _follow(chain, entry, [kind for kind, _ in found])
        if chain.row is not None and chain.row.tenant != entry.tenant and chain.identity and chain.identity[0] != entry.tenant:
            yield "subject", f"the entry is of tenant {shown(entry.tenant)}, its chain of {chain.identity[0]}"
        if not moved:  # else the content here is another entry's
            yield from self.content(chain, entry)

    def _as_hashed(self, chain: Chain, entry: StoredEntry) -> tuple[StoredEntry, list[Finding], bool]:
        """(2) the entry as it was hashed, the finding if its row is not, and whether the row was moved to another place."""
        computed = hash_of(entry)
        if computed is not None and computed == entry.hash:
            return entry, [], False
        mended = mend(entry, chain, self._tenants, self._lookups.origins(entry))
        if mended is not None:
            true, names = mended
            stored = " and ".join(f"{name} is {shown(getattr(entry, name))}" for name in names)
            detail = f"{stored}; what was hashed says {' and '.join(shown(getattr(true, name)) for name in names)}"
            if "chain_id" in names:
                return true._replace(seq=-1), [("column", detail)], True
            return true, [("column", detail)], "seq" in names
        seq = chain.seq + 1 if entry.seq is None else entry.seq
        witnessed = self._lookups.witnesses(entry, seq)
        if computed is not None and (computed in witnessed or entry.hash is None or entry.hash not in witnessed):
            detail = f"hash is {_hex(entry.hash)}; the entry's columns hash to {computed.hex()}"
            return entry._replace(hash=computed, seq=seq), [("hash", detail)], False
        detail = "at, or more than one column, is not what was hashed: the columns hash to " + (
            "nothing, because one is NULL"
            if computed is None
            else f"{computed.hex()}, and what follows names {_hex(entry.hash)}"
        )
        return entry._replace(seq=seq), [("column", detail)], False

    def content(self, chain: Chain, entry: StoredEntry) -> Iterator[Finding]:
        """Steps (6) to (8), for content of any kind."""
        if entry.kind != "event":
            chain.kept.append(entry.seq)
        if entry.attributes is None or entry.salt is None or (entry.body is None and entry.blob is None):
            if entry.kind == "event" and entry.attributes is None and entry.salt is None and entry.body is None:
                chain.lacks(entry.seq)  # whether an erasure authorises it is known at the end of the chain
            else:
                yield "content_missing", "part of it is missing, and no erasure does that"
            return
        if entry.body is not None and entry.blob is not None:
            yield "content_column", f"blob is {entry.blob:.80}, but the body is here"
        try:
            body = self._fetch(entry.tenant, entry.blob or "") if entry.body is None else entry.body
        except BlobLost as error:
            yield error.kind, str(error)
            body = None
        if body is not None and not _commits(entry, body):  # (6)
            yield "content_altered", _what_was_altered(entry, body)
            return
        try:
            attributes = read_attributes(entry.attributes)  # (7)
        except Unreadable as error:
            yield "attributes", str(error)
            return
        yield from _copies(entry, attributes)
        yield from _belongs(chain, entry, attributes)
        yield from _fingerprint(chain, entry, attributes)
        if entry.kind == "erasure" and body is not None:
            yield from _erases(chain, entry, body)


def _form(entry: StoredEntry) -> Iterator[Finding]:
    """(3) the columns are what an envelope may hold."""
    if entry.kind not in KINDS:
        yield "envelope", f"its kind is not known to this program: {shown(entry.kind)}"
    if entry.pc is None or len(entry.pc) != 32:
        yield "envelope", "it commits to no content, and every entry has content"
    if not all(isinstance(value, int) and abs(value) < SAFE for value in (entry.seq, entry.at)):
        yield "envelope", "seq or at is not an integer that JSON can hold"


def _follow(chain: Chain, entry: StoredEntry, found: list[str]) -> Iterator[Finding]:
    """(4) its number is one more than the one before, and it names the hash of the entry before."""
    for seq in range(chain.seq + 1, min(entry.seq, chain.seq + 101)):
        chain.gap(seq)
    thread = chain.thread
    if thread is None or (thread.seq, thread.hash) != (chain.seq, chain.hash):
        thread = chain.thread = Thread(chain.seq, chain.hash)
    prev = None if entry.prev_hash is None else entry.prev_hash.hex()
    for kind, detail in thread.follow(entry.seq, prev, entry.hash or b""):
        if not (kind == "link" and "column" in found):  # an altered prev_hash is told already
            yield kind, detail
    chain.seq, chain.hash = thread.seq, thread.hash


def _commits(entry: StoredEntry, body: bytes) -> bool:
    assert entry.salt is not None
    assert entry.attributes is not None
    return len(entry.salt) == 32 and compare_digest(commitment(entry.salt, entry.attributes, body), entry.pc or b"")


def _what_was_altered(entry: StoredEntry, body: bytes) -> str:
    assert entry.attributes is not None
    try:
        members = parse(entry.attributes)
    except Unreadable:
        members = None
    name = mended_attributes(entry, members, body) if isinstance(members, dict) else None
    if name is not None and isinstance(members, dict):
        return f"of its attributes, {name} is {shown(members.get(name))!r}, and was {shown(getattr(entry, name))!r}"
    return "attributes, body or salt are not what the entry commits to"


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


def _belongs(chain: Chain, entry: StoredEntry, attributes: Mapping[str, str]) -> Iterator[Finding]:
    """(5) the entry is about what its chain is about. An erasure is about the chain itself (LEDGER §4)."""
    subject = attributes["subject"]
    if entry.kind == "erasure":
        if subject != chain.hex:
            yield "subject", f"it erases in chain {shown(subject)}, and stands in another"
        return
    if chain.identity is None:
        chain.identity = entry.tenant, subject
    elif chain.identity[1] != subject:
        yield "subject", f"the entry is about {subject!r:.200}, its chain about {chain.identity[1]!r:.200}"


def _fingerprint(chain: Chain, entry: StoredEntry, attributes: Mapping[str, str]) -> Iterator[Finding]:
    """(8) the fingerprint is that of its tenant's key, source, origin and id, or without the origin."""
    if chain.key is None or (chain.row is not None and chain.row.tenant != entry.tenant):
        return
    if entry.fingerprint not in (
        identity(chain.key, attributes),
        fingerprint(chain.key, attributes["source"], attributes["id"]),
    ):
        yield "fingerprint", "it is not that of the entry's tenant, source, origin and id"


def _erases(chain: Chain, entry: StoredEntry, body: bytes) -> Iterator[Finding]:
    """What it lists lies before it, and is no erasure."""
    try:
        listed = read_erasure(body, entry.seq)
    except Unreadable as error:
        yield "erasure", str(error)
        return
    kept = [seq for seq in chain.kept if any(first <= seq <= last for first, last in listed.spans)]
    if kept:
        yield "erasure", f"it lists entry {kept[0]}, which is no event, and is never erased"
    chain.erasures.append((entry.seq, listed.spans))
    chain.renamed |= listed.subject


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
