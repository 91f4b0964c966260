"""What a bundle shows, and what it cannot show, in words. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.ledger.bundles.bundle_chains import Chains
from pipeline.ledger.bundles.bundle_log import LogOfBundle


class Claim(NamedTuple):
    """A claim: its name, and what it means here; of one that is not shown, why, and what would show it."""

    claim: str
    detail: str


def claims(chains: Chains, log: LogOfBundle, continued: Sequence[int], *, intact: bool) -> tuple[list[Claim], list[Claim]]:
    """What is shown, which is nothing if there is a fault, and what is not.

    `continued`: the sizes of the other checkpoints that are shown to be of the same history.
    """
    return (list(_shown(chains, log, continued)) if intact and chains.entries else []), list(_not_shown(chains, log, continued))


def _shown(chains: Chains, log: LogOfBundle, continued: Sequence[int]) -> Iterator[Claim]:
    yield Claim("unaltered", "every entry is as it was recorded, and follows the one before it")
    if log.checkpoint is None:
        return
    if log.signed_by:
        yield Claim("signed", f"the log {log.checkpoint.origin} was signed at {log.checkpoint.size} leaves")
    if log.sealed:
        count, leaves = sum(seq + 1 for seq in log.sealed.values()), log.checkpoint.size
        yield Claim("sealed", f"{count} of {chains.entries} entries were recorded before the log had {leaves} leaves")
    if log.heads is not None and log.members:
        yield Claim("complete", _completeness(log))
    for size in continued:
        yield Claim("consistent", f"the log and the one of the other checkpoint, of {size} leaves, are of one history")


def _completeness(log: LogOfBundle) -> str:
    assert log.heads is not None
    said = log.heads
    if len(log.members) == said.count:
        return f"these are all entries among the log's first {said.size} leaves: no chain is left out, and none is cut"
    return (
        f"of {len(log.members)} chains, these are all entries among the log's first {said.size} leaves; "
        f"{said.count - len(log.members)} other chains of the tenant are not in the bundle"
    )


def _not_shown(chains: Chains, log: LogOfBundle, continued: Sequence[int]) -> Iterator[Claim]:
    cut = "whether the end of a chain is missing, or a chain left out, does not show"
    if log.checkpoint is None:
        yield Claim("sealed", "it holds no checkpoint: whether all of it was written anew does not show")
        yield Claim("complete", f"it holds no checkpoint: {cut}")
        return
    if not log.signed_by:
        yield Claim("signed", "who signed the checkpoint was not checked: give the log's key with --vkey")
    if not log.members:
        yield Claim("complete", f"it holds no heads: {cut}")
    elif unnamed := sum(1 for each in chains.ids if each not in log.members):
        yield Claim("complete", f"the heads do not name {unnamed} of its chains, whose ends may be missing")
    if not continued:
        yield Claim(
            "consistent",
            "whether the log was written anew, or is shown differently to others, does not show: give a checkpoint that was "
            "kept elsewhere with --checkpoint",
        )
