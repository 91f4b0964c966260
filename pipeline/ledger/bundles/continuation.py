"""Whether of two checkpoints of a log one is shown to continue the other. Pure and offline."""

from collections.abc import Mapping, Sequence

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.checkpoint import Checkpoint, read_signed
from pipeline.ledger.checks import Finding
from pipeline.ledger.merkle import EMPTY_ROOT, check_consistency
from pipeline.ledger.notes import Key
from pipeline.ledger.tlog_proof import ConsistencyProof


def compare(
    own: Checkpoint,
    roots: Mapping[int, bytes],
    other: Checkpoint,
    proofs: Sequence[ConsistencyProof],
    keys: Sequence[Key],
) -> Finding | None:
    """The fault if nothing shows that a bundle's checkpoint and another are of one history. `roots`: what it shows, by size.

    Same size: same root. A smaller one: the bundle shows its root, or a proof of consistency leads from it to the bundle's. A
    larger one: a proof leads from the bundle's to it, and otherwise the log was rolled back.
    """
    if other.origin != own.origin:
        return "checkpoint", f"the other checkpoint is of the log {other.origin:.200}, the bundle's of {own.origin:.200}"
    known = {0: EMPTY_ROOT, **roots}.get(other.size)
    if known is not None:
        return None if known == other.root else ("log_rewritten", _two_roots(other.size, known, other.root))
    older, newer = sorted((own, other), key=lambda each: each.size)
    try:
        shown = _leads(older, newer, proofs, keys)
    except Unproven as error:
        detail = f"the log was written anew after {older.size} leaves were signed, or a proof of consistency is not of it"
        return "log_rewritten", f"{detail}: {error}"
    except Unreadable as error:
        return "checkpoint", f"a proof of consistency: {error}"
    return None if shown else _not_shown(own, other)


def _not_shown(own: Checkpoint, other: Checkpoint) -> Finding:
    if other.size < own.size:
        ask = f"`waxseal prove TENANT --consistency {other.size} {own.size}` gives the proof, for --consistency"
        return "checkpoint", f"nothing shows that the log of {own.size} leaves continues that of {other.size}: {ask}"
    ask = f"then `waxseal prove TENANT --consistency {own.size} {other.size}` gives the proof, for --consistency"
    was = f"the log had {other.size} leaves when the other checkpoint was signed, and has {own.size} in the bundle"
    return "log_rolled_back", f"{was}: it was rolled back, unless the bundle is older; {ask}"


def _leads(older: Checkpoint, newer: Checkpoint, proofs: Sequence[ConsistencyProof], keys: Sequence[Key]) -> bool:
    """Whether the proofs lead from one checkpoint to the other, in one step or several. Raises `Unproven` if one is wrong."""
    reached = {older.size: older.root}
    steps = sorted(((proof, _checkpoint(proof, keys)) for proof in proofs), key=lambda step: step[0].old)
    for proof, to in steps:
        root = reached.get(proof.old)
        if root is None or to.origin != older.origin:
            continue
        check_consistency(proof.old, to.size, root, to.root, proof.hashes)
        if reached.setdefault(to.size, to.root) != to.root:
            raise Unproven(_two_roots(to.size, reached[to.size], to.root))
    if newer.size in reached and reached[newer.size] != newer.root:
        raise Unproven(_two_roots(newer.size, reached[newer.size], newer.root))
    return newer.size in reached


def _checkpoint(proof: ConsistencyProof, keys: Sequence[Key]) -> Checkpoint:
    try:
        return read_signed(proof.checkpoint, keys)[0]
    except Unproven as error:
        raise Unreadable(str(error)) from None


def _two_roots(size: int, one: bytes, other: bytes) -> str:
    return f"there are two logs of {size} leaves, with the roots {one.hex()} and {other.hex()}"
