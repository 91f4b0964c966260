"""Verifies a bundle offline (LEDGER §5), with SHA-256, HMAC and Ed25519 alone.

A bundle is trusted no more than the ledger. The plan:

 (1) the first line is that of a bundle, and names the tenant;

and for every line after it

 (2) it is JSON in the form of LEDGER §5, no longer than the longest line that is exported, and entries come first;

for every entry

 (3) the envelope is RFC 8785 JSON with exactly the keys of LEDGER §1, of that tenant;
 (4) each chain occurs once, from its first entry, without a gap, and every entry names the hash of the one before;
 (5) the hash is SHA-256(0x00 || envelope);
 (6) the envelope commits to the content;
 (7) the attributes are RFC 8785 JSON, those of an event, and have the same subject throughout a chain;
 (8) only content that a later erasure of the same chain lists is missing, and all of that is;

of the log

 (9) there is one checkpoint, signed by its own log;
(10) each inclusion's entry is in the bundle, and its proof leads to the checkpoint's root;
(11) the heads entry is in the log, and the bundle's chains end where it says, or later;
(12) the log has each chain's entries in their order, but for leaf 0, by which a restored log begins;

and with other checkpoints of that log

(13) of the two trees, one is shown to continue the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple

from pipeline.errors import Unreadable
from pipeline.formats.cloudevents import MAX_VALUE
from pipeline.ledger.bundles.bundle import VERSION, Inclusion
from pipeline.ledger.bundles.bundle_chains import Chains, Report
from pipeline.ledger.bundles.bundle_claims import Claim, claims
from pipeline.ledger.bundles.bundle_lines import MAX_LINE, BundledEntry, lines, read_header, read_line
from pipeline.ledger.bundles.bundle_log import LogOfBundle
from pipeline.ledger.bundles.continuation import compare
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.notes import Key
from pipeline.ledger.tlog_proof import ConsistencyProof
from schemas.ledger.fault import Fault, FaultKind, Verified

STEP: Final = 1000  # lines between two calls of `progress`


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller trusts, or has from elsewhere: keys, checkpoints of the same log, and proofs of consistency."""

    keys: Sequence[Key] = ()
    checkpoints: Sequence[Checkpoint] = ()
    proofs: Sequence[ConsistencyProof] = ()


class Unsealed(NamedTuple):
    """Entries of a chain that come after the last one that is shown to be in the log."""

    chain: str
    subject: str | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """The result: whether it is intact, what it shows (`shown`), and what it cannot show (`not_shown`)."""

    verified: Verified
    checkpoint: Checkpoint | None = None
    signed_by: Sequence[str] = ()
    unsealed: Sequence[Unsealed] = ()
    shown: Sequence[Claim] = ()
    not_shown: Sequence[Claim] = ()


def verify_bundle(
    stream: IO[bytes], known: Known, report: Report, progress: Callable[[int], None] = lambda _: None
) -> VerifiedBundle:
    """Checks a bundle and reports every fault. Holds one line at a time, and 32 bytes of each entry.

    `progress` gets the number of bytes read. Raises `Unreadable` when the first line is not that of a bundle.
    """
    first = stream.readline(MAX_LINE)
    if not first:
        return VerifiedBundle(Verified(0, 0, 0))
    verifier = _Verifier(*read_header(first), known, report)
    for number, line in enumerate(lines(stream), 2):
        verifier.line(number, line)
        if number % STEP == 0:
            progress(stream.tell())
    return verifier.end()


@dataclass(slots=True)
class _Verifier:
    version: str
    tenant: str
    known: Known
    report: Report
    faults: int = 0
    chains: Chains = field(init=False)
    log: LogOfBundle = field(init=False)
    entries_ended: bool = False

    def __post_init__(self) -> None:
        self.chains = Chains(self.tenant, self.report)
        self.log = LogOfBundle(self.chains, self.tenant, self.known.keys, self.report)
        self.log.wanted = {each.size for each in self.known.checkpoints}

    def line(self, number: int, line: bytes | None) -> None:
        """(2) it is JSON in the form of LEDGER §5, and entries come first."""
        try:
            read = read_line(line)
        except Unreadable as error:
            self._found("line", f"line {number}: {error}")
            return
        if isinstance(read, BundledEntry):
            if self.entries_ended:
                self._found("line", f"line {number}: entries come before the checkpoint")
            else:
                self.chains.add(number, read)
            return
        if self.version != VERSION:
            self._found("checkpoint", f"line {number}: this version of bundles holds entries only")
            return
        self._end_entries()
        if isinstance(read, str):
            self.log.add_checkpoint(number, read)
        elif isinstance(read, Inclusion):
            self.log.add_inclusion(number, read)
        else:
            self.log.add_heads(number, read)

    def end(self) -> VerifiedBundle:
        self._end_entries()
        self.log.end()
        log, keys = self.log, self.known.keys
        if keys and not log.has_checkpoint:
            lacks = "a key was given, but the bundle holds no checkpoint: nothing shows whose it is, or that it is complete"
            self._found("checkpoint", lacks)
        continued = [each.size for each in self.known.checkpoints if self._continued(each)]
        faults = self.chains.faults + log.faults + self.faults
        ids = list(self.chains.ids)
        shown, not_shown = claims(self.chains, log, continued, intact=not faults)
        verified = Verified(self.chains.entries, len(ids), faults)
        return VerifiedBundle(verified, log.checkpoint, log.signed_by, self._unsealed(ids), shown, not_shown)

    def _continued(self, other: Checkpoint) -> bool:
        """(13) of the two trees, one is shown to continue the other."""
        if self.log.checkpoint is None:
            self._found("checkpoint", "a checkpoint was given, and the bundle holds none that holds: nothing compares with it")
            return False
        own, roots = self.log.checkpoint, self.log.roots
        before = None if self.log.first is None else self.chains.origins.get(self.log.first)
        if before is not None and before.origin == other.origin:  # of the log that this one goes on from, after a restore
            own, roots = before, {}
        fault = compare(own, {own.size: own.root, **roots}, other, self.known.proofs, self.known.keys)
        if fault is not None:
            self._found(*fault)
        return fault is None

    def _end_entries(self) -> None:
        if not self.entries_ended:
            self.entries_ended = True
            self.chains.end()

    def _unsealed(self, ids: Sequence[bytes]) -> list[Unsealed]:
        if self.log.checkpoint is None:
            return []
        rest = ((each, self.log.sealed.get(each, -1) + 1, self.chains.length(each) - 1) for each in ids)
        return [Unsealed(each.hex(), self.chains.subject(each), first, last) for each, first, last in rest if first <= last]

    def _found(self, kind: FaultKind, detail: str) -> None:
        self.faults += 1
        self.report(Fault(self.tenant[:MAX_VALUE], None, None, None, kind, detail))
