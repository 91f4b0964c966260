"""Positions in a tenant's log: each committed entry gets one, once, after the entry before it in its chain (LEDGER §3)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from pipeline.errors import ChainBroken
from pipeline.ledger.merkle import extend, read_frontier, split_hashes
from pipeline.store.log import positions
from pipeline.store.log.positions import Choice

MOST: Final = 4000  # leaves in one transaction: what it answers must fit into the socket of a process that stands still
FROZEN: Final = 3.0  # seconds that a process may stand still in its transaction; then another goes on


class Incomplete(ChainBroken):
    """Entries that were recorded are gone from the ledger before they had positions. Nothing was positioned."""


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The result of one transaction: the log's size, the new leaves in it, and whether more was pending than it took."""

    size: int
    leaves: int
    more: bool


def sequence(
    conn: Connection, tenant: str, *, floor: int = 0, aside: Collection[str] = (), most: int = MOST, frozen: float = FROZEN
) -> Sequenced | None:
    """Gives the tenant's first pending entries, at most `most`, the next positions of its log, and extends the tree by them.

    Runs in the caller's transaction, which holds the tenant's lock until it ends: nothing has a position before COMMIT, and
    everything that was pending still is if it ends before. None when another process is at work on the tenant. `floor`: an id
    at or below which nothing is pending; `aside`: chains to leave out, as 32 hex digits. Raises `Incomplete`.
    """
    choice = Choice(tenant, floor, aside, most)
    locked = positions.lock(conn, choice, frozen)
    if locked is None:
        return None
    log, chosen = locked
    if log.state != "open" or chosen.last is None:
        return Sequenced(log.size, 0, more=False)
    entries, packed = positions.place(conn, log, choice, chosen)
    hashes = split_hashes(packed)
    if len(hashes) != entries:
        raise Incomplete(f"of {entries} pending entries of {tenant}, {len(hashes)} are in the ledger")
    grown = extend(read_frontier(log.size, bytes(log.frontier)), hashes)
    if not positions.grow(conn, log, grown.size, grown.packed):
        raise AssertionError("the log moved while it was locked")
    return Sequenced(grown.size, entries, more=chosen.more)


def incomplete(conn: Connection, tenant: str, *, floor: int = 0, aside: Collection[str] = (), most: int = MOST) -> list[str]:
    """The chains, as 32 hex digits, for which `sequence` raised `Incomplete`."""
    return positions.incomplete(conn, Choice(tenant, floor, aside, most))
