"""Erases content, with an entry of kind "erasure" in the same chain and transaction (LEDGER §4), and reads such entries.

The order of locks is that of a replay and a settlement: dead letters, deliveries, then heads. Appending holds a head only while
it records, so erasing makes nobody wait for longer than one batch.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from pipeline.append import append_own
from pipeline.dedupe import identity
from pipeline.errors import Unreadable
from pipeline.ledger.erasures import Span, read_erasure
from pipeline.store.deliveries import deliveries
from pipeline.store.ledger import erasure as store
from schemas.event import Event
from schemas.ledger.erasure import ErasableChain, Erased

KIND: Final = "erasure"
TYPE: Final = "waxseal.erasure"
SOURCE: Final = "waxseal"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants content erased, and why: kept in the ledger for ever, so neither may name the person whose data it is."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction erases from one chain: events that have content; `name`: the subject's name, too."""

    chain: ErasableChain
    seqs: Sequence[int]  # ascending
    name: bool = False


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure entry as it was recorded."""

    seq: int
    at: datetime
    by: str
    reason: str
    runs: Sequence[Span]
    subject: bool  # the subject's name was erased


def erase(conn: Connection, batches: Sequence[Batch], order: Order, keys: Mapping[str, bytes], now: datetime) -> Erased:
    """Erases the batches, of one chain each; returns what went. `keys` are the tenants' fingerprint keys.

    The chains must have been reserved with `store.serialise` before their numbers were looked up, in this transaction.
    """
    store.lock(conn, [(batch.chain.chain_id, seq) for batch in batches for seq in batch.seqs])
    total = Erased()
    turns = []
    for batch in sorted(batches, key=lambda batch: batch.chain.key):  # as appends lock heads
        entry = append_own(conn, _event(batch, order, keys[batch.chain.tenant], now), KIND, now)
        erased = store.erase(conn, batch.chain.chain_id, entry.seq)
        turns += [(endpoint_id, batch.chain.chain_id) for endpoint_id in erased.turns]
        total += erased
    deliveries.pass_on(conn, turns, now)
    return total


def runs(seqs: Iterable[int]) -> list[Span]:
    """Ascending numbers as runs of consecutive ones."""
    found: list[Span] = []
    for seq in seqs:
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found


def body(order: Order, seqs: Iterable[int], *, name: bool) -> bytes:
    """The body of an erasure entry, in RFC 8785 form."""
    told = {"by": order.by, "reason": order.reason, "seqs": runs(seqs), "subject": name}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


class Erasures:
    """The erasures of one chain, to look up which of them took an entry's content."""

    def __init__(self, found: Iterable[Erasure]) -> None:
        self._all = list(found)
        spans = sorted((first, last, at) for at, each in enumerate(self._all) for first, last in each.runs)
        self._firsts = [first for first, _, _ in spans]
        self._spans = spans

    def of(self, seq: int) -> Erasure | None:
        """The erasure that lists entry `seq`; None if there is none."""
        at = bisect_right(self._firsts, seq) - 1
        return self._all[self._spans[at][2]] if at >= 0 and seq <= self._spans[at][1] else None

    @property
    def last(self) -> Erasure | None:
        """The last one; None if there is none."""
        return self._all[-1] if self._all else None


def erasures(conn: Connection, chain_id: Any) -> Erasures:
    """The chain's erasures; those that cannot be read, which `verify` reports, are left out."""
    return Erasures(_readable(store.erasures(conn, chain_id)))


def _readable(rows: Iterable[tuple[int, int, bytes]]) -> Iterator[Erasure]:
    for seq, at, raw in rows:
        try:
            listed = read_erasure(raw, seq)
        except Unreadable:
            continue
        yield Erasure(seq, _EPOCH + timedelta(microseconds=at), listed.by, listed.reason, listed.spans, listed.subject)


def _event(batch: Batch, order: Order, key: bytes, now: datetime) -> Event:
    attributes = {
        "id": os.urandom(16).hex(),
        "source": SOURCE,
        "specversion": "1.0",
        "type": TYPE,
        "subject": batch.chain.chain_id.hex,
        "time": now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }
    raw = body(order, batch.seqs, name=batch.name)
    return Event(batch.chain.tenant, attributes, raw, identity(key, attributes), batch.chain.key, moment=now)
