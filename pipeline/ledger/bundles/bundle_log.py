"""Checks what a bundle shows of its tenant's log: checkpoint, inclusions and heads. Pure and offline.

See `bundle_verify` for the plan.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from pipeline.chain import entry_hash
from pipeline.errors import Unproven, Unreadable
from pipeline.formats.cloudevents import MAX_VALUE
from pipeline.ledger.bundles.bundle import Inclusion
from pipeline.ledger.bundles.bundle_chains import Chains
from pipeline.ledger.bundles.bundle_lines import BundledEntry, BundledHeads, read_content
from pipeline.ledger.checkpoint import Checkpoint, read_signed
from pipeline.ledger.checks import Finding, check_content, read_envelope
from pipeline.ledger.heads import Heads, MemberProof, read_heads
from pipeline.ledger.merkle import check_inclusion, leaf_hash, prefix_root
from pipeline.ledger.notes import Key
from schemas.ledger.fault import Fault


class LogOfBundle:
    """What was shown of the log so far. `roots` are those that the proofs show for the sizes in `wanted`."""

    def __init__(self, chains: Chains, tenant: str, keys: Sequence[Key], report: Callable[[Fault], None]) -> None:
        self.has_checkpoint = False
        self.checkpoint: Checkpoint | None = None  # one that holds
        self.signed_by: tuple[str, ...] = ()
        self.faults = 0
        self.sealed: dict[bytes, int] = {}  # the last number of each chain that is shown to be in the log
        self.roots: dict[int, bytes] = {}
        self.wanted: set[int] = set()
        self.first: tuple[bytes, int] | None = None  # the entry that is leaf 0, if that is shown
        self.heads: Heads | None = None
        self.members: dict[bytes, int] = {}  # by chain, where the heads say that it ended; those that agree with the bundle
        self._chains = chains
        self._tenant = tenant
        self._keys = keys
        self._report = report
        self._places: dict[bytes, list[tuple[int, int]]] = {}

    def add_checkpoint(self, number: int, note: str) -> None:
        """(9) the checkpoint is the only one, and signed by its own log."""
        if self.has_checkpoint:
            self.found([("checkpoint", f"line {number}: there is more than one")])
            return
        self.has_checkpoint = True
        try:
            self.checkpoint, self.signed_by = read_signed(note, self._keys)
        except Unreadable as error:
            self.found([("checkpoint", f"line {number}: {error}")])

    def add_inclusion(self, number: int, inclusion: Inclusion) -> None:
        """(10) the entry is in the bundle, and the proof leads from its hash to the checkpoint's root."""
        known = self._chains.hash_at(inclusion.chain, inclusion.seq)
        if known is None:
            self.found([("inclusion", f"line {number}: its entry is not in the bundle")], inclusion.chain, inclusion.seq)
        elif self._included(number, inclusion, known):
            if inclusion.index:
                self._places.setdefault(inclusion.chain, []).append((inclusion.seq, inclusion.index))
            else:
                self.first = (inclusion.chain, inclusion.seq)
            self.sealed[inclusion.chain] = max(inclusion.seq, self.sealed.get(inclusion.chain, 0))
            if inclusion.index + 1 in self.wanted:
                root = prefix_root(known, inclusion.index, inclusion.size, inclusion.proof)
                self.roots[inclusion.index + 1] = root

    def add_heads(self, number: int, heads: BundledHeads) -> None:
        """(11) the heads entry is in the log, and the bundle's chains end where it says, or later."""
        try:
            said = self._said(number, heads)
        except Unreadable as error:
            self.found([("heads", f"line {number}: {error}")])
            return
        if said is None:
            return
        if self.heads is not None and self.heads != said:
            self.found([("heads", f"line {number}: there are heads of two entries")])
            return
        self.heads = said
        for member in heads.members:
            chain = member.member.chain_id.bytes
            self.found(self._member(chain, member, said), chain, member.member.seq)

    def end(self) -> None:
        """(12) the log has each chain's entries in their order, but for leaf 0, by which a restored log begins."""
        for chain, places in self._places.items():
            places.sort()
            wrong = next((one for one, other in pairwise(places) if one[1] > other[1]), None)
            if wrong is not None:
                self.found([("inclusion", "in the log it comes after a later entry of its chain")], chain, wrong[0])

    def found(self, findings: "Iterator[Finding] | list[Finding]", chain: bytes | None = None, seq: int | None = None) -> None:
        """Reports faults."""
        for kind, detail in findings:
            self.faults += 1
            subject = None if chain is None else self._chains.subject(chain)
            shown = None if chain is None else chain.hex()
            self._report(Fault(self._tenant[:MAX_VALUE], subject and subject[:MAX_VALUE], shown, seq, kind, detail))

    def _included(self, number: int, inclusion: Inclusion, leaf: bytes) -> bool:
        checkpoint = self.checkpoint
        if checkpoint is None:
            detail = "there is no checkpoint before it that holds"
        elif inclusion.size != checkpoint.size:
            detail = f"it is for a log of {inclusion.size} leaves, and the checkpoint is of {checkpoint.size}"
        else:
            try:
                check_inclusion(leaf, inclusion.index, inclusion.size, inclusion.proof, checkpoint.root)
                return True
            except Unproven as error:
                detail = str(error)
        self.found([("inclusion", f"line {number}: {detail}")], inclusion.chain, inclusion.seq)
        return False

    def _said(self, number: int, heads: BundledHeads) -> Heads | None:
        """What the heads entry says; None if it is not shown to be in the log, which is reported."""
        envelope, said = _heads_entry(heads.entry)
        place = heads.inclusion
        if envelope["tenant"] != self._tenant:
            raise Unreadable(f"the entry is of tenant {envelope['tenant']!r:.80}")
        if (envelope["chain"], envelope["seq"]) != (place.chain.hex(), place.seq):
            raise Unreadable("the inclusion is of another entry")
        if place.index < said.size:
            raise Unreadable(f"the entry is at {place.index}, and speaks of {said.size} leaves before it")
        return said if self._included(number, place, entry_hash(heads.entry.envelope)) else None

    def _member(self, chain: bytes, member: MemberProof, said: Heads) -> Iterator[Finding]:
        if member.count != said.count:
            yield "heads", f"of this chain: it is one of {member.count}, and the entry says {said.count}"
            return
        try:
            check_inclusion(leaf_hash(member.member.data), member.index, said.count, member.proof, said.root)
        except Unproven as error:
            yield "heads", f"of this chain: {error}"
            return
        seq, known = member.member.seq, self._chains.hash_at(chain, member.member.seq)
        if known == member.member.hash:
            self.members[chain] = seq
        elif known is not None:
            yield "log_rewritten", f"the log has {member.member.hash.hex()} as its entry, the bundle {known.hex()}"
        elif self._chains.length(chain):
            yield "chain_cut", f"it ends at entry {self._chains.length(chain) - 1}, and in the log at {seq} or later"
        else:
            yield "chain_left_out", f"it is not in the bundle, and has {seq + 1} entries in the log"


def _heads_entry(line: BundledEntry) -> tuple[dict[str, object], Heads]:
    """The envelope of an entry of kind "heads", and what it says. Raises `Unreadable`."""
    envelope = dict(read_envelope(line.envelope))
    if envelope["kind"] != "heads" or line.content is None:
        raise Unreadable("the entry is not of kind heads, or has no content")
    if line.hash != entry_hash(line.envelope).hex():
        raise Unreadable("the entry's hash is not that of its envelope")
    content = read_content(line.content)
    for _, detail in check_content(str(envelope["pc"]), content.attributes, content.body, content.salt):
        raise Unreadable(detail)
    return envelope, read_heads(content.body)
