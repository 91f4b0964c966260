"""Verifies that the ledger is as it was written, by a numbered argument.

Nothing stored is trusted, neither columns nor heads nor hashes nor the database's own constraints: only what follows from the
bytes that were hashed. For every chain

 (1) its row exists, is the only one of its subject, and has the key of the tenant and subject that its entries name;

and for every entry of it, in order,

 (2) the stored hash is SHA-256(0x00 || envelope), the envelope being made of the entry's columns;
 (3) the columns are what an envelope may hold (LEDGER §1);
 (4) its number is one more than the one before, and `prev` is the hash of the entry before;
 (5) its tenant and subject are the chain's;
 (6) the content exists, its body in the row or in the blob store, and the entry commits to it; or a later erasure entry of the
     same chain lists it, and then it is gone;
 (7) the attributes are RFC 8785 JSON, and the content's columns agree with them;
 (8) the fingerprint is that of its tenant's key, source, origin and id, or, as earlier versions made it, without the origin;

and at the end of the chain

 (9) the chain's row names the last entry and its hash.

Finally, over all chains,

(10) there is no content without an entry, and no two contents of one entry;
(11) no fingerprint is there twice, and no subject has two chains.

The fault is what deviates from the bytes that were hashed. So an altered column of an entry is named, not the hash that no
longer fits it; and a chain's row that names another subject is one fault, not one of each entry.

This finds every edit that leaves a contradiction. If the end of a chain is cut off and its head moved back, or a whole chain
is deleted with its row, there is no contradiction in the chains. The tenant's log shows it (`pipeline.ledger.verify_log`), and
where the chain was verified before, what is known from then; else only a checkpoint kept elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Connection

from pipeline.dedupe import chain_key
from pipeline.ledger.checks import Finding
from pipeline.ledger.verifying.chain_ends import head, listed_or_missing
from pipeline.ledger.verifying.chain_state import Chain
from pipeline.ledger.verifying.entry_checks import EntryChecks, Fetch
from pipeline.ledger.verifying.sweep import Row, Runs, sweep
from pipeline.store.ledger import points, repeats, scan
from pipeline.store.ledger.lookups import Lookups
from pipeline.store.ledger.points import Reached
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import Fault, Verified
from schemas.ledger.ledger_rows import StoredChain, StoredEntry

Keys = Mapping[str, bytes | None]
"""The tenants' keys; None in place of one that is damaged."""

Report = Callable[[Fault], None]
Progress = Callable[[int], None]
Arrived = Callable[[Reached], None]


def verify(
    conn: Connection,
    scope: Scope,
    keys: Keys | None,
    fetch: Fetch,
    report: Report,
    progress: Progress = lambda _: None,
    reached: Arrived = lambda _: None,
) -> Verified:
    """Checks all of `scope` and reports every fault: it never stops at the first.

    `conn` must be in one REPEATABLE READ transaction, so that concurrent appends do not look like faults. Without the tenants'
    `keys`, the chain keys and fingerprints of steps (1) and (8) are not checked. Memory is bounded. Any other exception than
    `BlobLost` from `fetch` is passed on, and there is no verdict. `reached` is told the end of each chain.
    """
    verifier = Verifier(conn, keys, fetch, report, progress, reached)
    verifier.part(scope)
    verifier.everywhere(scope)
    return verifier.verified()


def verify_new(
    conn: Connection, keys: Keys | None, fetch: Fetch, report: Report, reached: Arrived, progress: Progress = lambda _: None
) -> Verified:
    """As `verify`, but only what was appended since the verified points, and chains in which a fault was found last time."""
    verifier = Verifier(conn, keys, fetch, report, progress, reached)
    verifier.since_points()
    return verifier.verified()


class Verifier:
    """Verifies chains, and counts. Not for several threads at once."""

    def __init__(
        self,
        conn: Connection,
        keys: Keys | None,
        fetch: Fetch,
        report: Report,
        progress: Progress = lambda _: None,
        reached: Arrived = lambda _: None,
    ) -> None:
        self._conn = conn
        self._keys = keys
        self._report = report
        self._progress = progress
        self._reached = reached
        self._starts: dict[bytes, tuple[int, bytes | None]] = {}
        self._lookups = Lookups(conn)
        self._checks = EntryChecks(tuple(keys or ()), fetch, self._lookups)
        self._entries = self._chains = self._faults = 0
        self._open: Chain | None = None

    def verified(self) -> Verified:
        """What was verified so far."""
        return Verified(self._entries, self._chains, self._faults)

    def part(self, scope: Scope) -> None:
        """Steps (1) to (9) for the chains of a scope, and their verified points."""
        scope = scan.with_logs(self._conn, scope)
        self._chains_of(scan.chains(self._conn, scope), scan.pages(self._conn, scope))
        self._points(scope)

    def since_points(self) -> None:
        """The same for what was appended since the verified points."""
        self._chains_of(self._new_chains(), scan.pages_of_each(self._conn, points.AFTER_POINT))
        self._points(Scope())

    def _points(self, scope: Scope) -> None:
        for point in points.broken_points(self._conn, scope):
            self._found_at(point.tenant, point.subject, point.chain_id, point.seq, [(point.kind, point.detail)])
            self._reached(Reached(point.chain_id, point.tenant, -1, None, broken=True))

    def _new_chains(self) -> Iterator[StoredChain]:
        for row, seq, entry_hash in points.new_chains(self._conn):
            if seq >= 0:
                self._starts[row.chain_id] = seq, entry_hash
            yield row

    def _chains_of(self, rows: Iterable[StoredChain], pages: Iterable[Sequence[Row]]) -> None:
        """`rows` and `pages` must be in the order of chain ids."""
        waiting = _Waiting(rows)
        for page in pages:
            runs = [(self._chain(chain_id, waiting), list(part)) for chain_id, part in groupby(page, itemgetter(0))]
            self._page(page, runs)
            for chain, _ in runs[:-1]:
                self._end(chain)
            self._open = runs[-1][0]
            self._entries += len(page)
            self._progress(self._entries)
        if self._open is not None:
            self._end(self._open)
        self._open = None
        for row in waiting.before(None):
            self._end(self._begin(row.chain_id, row))

    def everywhere(self, scope: Scope) -> None:
        """(10) and (11), over all chains of the scope."""
        scope = scan.with_logs(self._conn, scope)
        for chain_id, seq, tenant, subject in scan.stray_content(self._conn, scope):
            detail = "there is content, but no entry that it belongs to"
            self._found_at(tenant, subject, chain_id, seq, [("content_without_entry", detail)])
        for kind, row in repeats.found(self._conn, scope):
            self._found_at(row.tenant, row.subject, row.chain_id, row.seq, [(kind, row.detail)])

    def _chain(self, chain_id: bytes | None, waiting: "_Waiting") -> Chain:
        if self._open is not None and self._open.chain_id == chain_id:
            chain, self._open = self._open, None
            return chain
        if self._open is not None:
            self._end(self._open)
            self._open = None
        for row in waiting.before(chain_id):
            self._end(self._begin(row.chain_id, row))
        return self._begin(chain_id, waiting.take(chain_id))

    def _begin(self, chain_id: bytes | None, row: StoredChain | None) -> Chain:
        self._chains += 1
        key = None if self._keys is None or row is None else self._keys.get(row.tenant)
        keyed = row is not None and (self._keys is None or (key is None and row.tenant in self._keys) or _has_key(row, key))
        chain = Chain(chain_id, row, key, keyed=keyed)
        chain.seq, chain.hash = self._starts.pop(chain_id or b"", (-1, None))
        return chain

    def _page(self, page: Sequence[Row], runs: Runs) -> None:
        others = sweep(page, runs)
        if others is None:
            for chain, part in runs:
                for row in part:
                    entry = self._whole(row)
                    first = chain.seq < 0 and chain.row is None
                    findings = list(self._checks.entry(chain, entry))
                    if chain.row is None:
                        chain.identity = chain.identity or (entry.tenant, entry.subject or "")
                        chain.key = (self._keys or {}).get(entry.tenant)
                    if first and not any(kind == "column" for kind, _ in findings):  # (1)
                        findings.insert(0, ("chain_row_missing", "the entries exist, but not the row of their chain"))
                    self._found(chain, entry.seq, findings)
            return
        for chain, row in others:
            entry = self._whole(row)
            findings = list(self._checks.content(chain, entry))
            self._found(chain, entry.seq, findings)

    def _whole(self, row: Row) -> StoredEntry:
        entry = StoredEntry._make(row[:-1])
        if not row[-1]:
            return entry
        attributes, body = scan.content(self._conn, entry.chain_id, entry.seq)
        return entry._replace(attributes=attributes, body=body)

    def _end(self, chain: Chain) -> None:
        erased = [span for _, spans in chain.erasures for span in spans]
        present = self._lookups.present(chain.chain_id, erased) if chain.chain_id is not None else []
        for seq, finding in listed_or_missing(chain, present):
            self._found(chain, seq, [finding])
        if chain.row is not None:
            self._found(chain, None, [*self._row(chain, chain.row), *head(chain, chain.row)])
            if chain.chain_id is not None and chain.tenant is not None:
                self._reached(Reached(chain.chain_id, chain.tenant, chain.seq, chain.hash, chain.faults > 0))

    def _row(self, chain: Chain, row: StoredChain) -> Iterator[Finding]:
        """(1) the row has the tenant and subject of its entries, and their key. An erased name need not be there."""
        tenant, subject = chain.identity or (row.tenant, row.subject)
        unnamed = chain.renamed and row.subject is None
        if unnamed and chain.identity is None:  # nothing tells the key any more, until an entry names the subject again
            return
        named = (("tenant", row.tenant, tenant), ("subject", subject if unnamed else row.subject, subject))
        wrong = [name for name, ours, theirs in named if ours != theirs]
        if wrong:
            said = " and ".join(f"{name} is {getattr(row, name)!r:.200}" for name in wrong)
            yield "chain_row", f"its {said}; its entries are of {tenant}, about {subject!r:.200}"
            return
        if self._keys is None:
            return
        if tenant not in self._keys:
            yield "chain_row", f"there is no tenant {tenant}"
        elif (key := self._keys[tenant]) is not None and row.key != chain_key(key, subject or ""):
            yield "chain_row", "its key is not that of its tenant and subject"

    def _found(self, chain: Chain, seq: int | None, findings: Sequence[Finding]) -> None:
        chain.faults += len(findings)
        self._found_at(chain.tenant, chain.subject, chain.chain_id, seq, findings)

    def _found_at(
        self, tenant: str | None, subject: str | None, chain_id: bytes | None, seq: int | None, findings: Iterable[Finding]
    ) -> None:
        for kind, detail in findings:
            self._faults += 1
            self._report(Fault(tenant, subject, None if chain_id is None else chain_id.hex(), seq, kind, detail))


class _Waiting:
    """The chains' rows in order, of which the next one can be looked at."""

    def __init__(self, rows: Iterable[StoredChain]) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)

    def before(self, chain_id: bytes | None) -> Iterator[StoredChain]:
        """Takes the rows before a chain's; all that are left for None, which is last in the order, as in Postgres."""
        while self._next is not None and (chain_id is None or _position(self._next.chain_id) < chain_id):
            row, self._next = self._next, next(self._rows, None)
            yield row

    def take(self, chain_id: bytes | None) -> StoredChain | None:
        """Takes the row of this chain; None if it is missing."""
        if self._next is None or chain_id is None or self._next.chain_id != chain_id:
            return None
        row, self._next = self._next, next(self._rows, None)
        return row


def _position(chain_id: bytes | None) -> bytes:
    return chain_id or b"\xff" * 17


def _has_key(row: StoredChain, key: bytes | None) -> bool:
    return key is not None and row.key == chain_key(key, row.subject or "")
