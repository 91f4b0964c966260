"""Erases content, with an entry of kind "erasure" in the same chain and transaction (LEDGER §4), and reads such entries.

The order of locks is that of a replay and a settlement: dead letters, deliveries, then heads. Appending holds a head only while
it records, so erasing makes nobody wait for longer than one batch.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from pipeline.append import append_own
from pipeline.dedupe import identity
from pipeline.errors import Unreadable
from pipeline.store.deliveries import deliveries
from pipeline.store.ledger import erasure as store
from schemas.event import Event
from schemas.ledger.erasure import ErasableChain, Erased

KIND: Final = "erasure"
TYPE: Final = "waxseal.erasure"
SOURCE: Final = "waxseal"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MEMBERS: Final = {"by", "reason", "seqs", "subject"}

Run = tuple[int, int]  # the first and the last of consecutive numbers


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
    runs: Sequence[Run]
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


def runs(seqs: Iterable[int]) -> list[Run]:
    """Ascending numbers as runs of consecutive ones."""
    found: list[Run] = []
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


def read_erasure(seq: int, at: int, raw: bytes) -> Erasure:
    """The erasure entry `seq` recorded at `at` (microseconds) with this body. Raises `Unreadable` for any other body.

    It can list only entries before itself, each once.
    """
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict) or told.keys() != _MEMBERS or orjson.dumps(told, option=orjson.OPT_SORT_KEYS) != raw:
        raise Unreadable(f"entry {seq} is not an erasure in the form of LEDGER §4")
    found = list(_runs(told["seqs"]))
    texts = isinstance(told["by"], str) and isinstance(told["reason"], str) and isinstance(told["subject"], bool)
    ordered = all(first <= last for first, last in found) and all(one[1] < next_[0] for one, next_ in pairwise(found))
    if not texts or len(found) != len(told["seqs"]) or not ordered or (found and not 0 <= found[0][0] <= found[-1][1] < seq):
        raise Unreadable(f"entry {seq} is not an erasure in the form of LEDGER §4")
    return Erasure(seq, _EPOCH + timedelta(microseconds=at), told["by"], told["reason"], found, told["subject"])


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

    @property
    def of_name(self) -> Erasure | None:
        """The first that erased the subject's name; None if there is none."""
        return next((each for each in self._all if each.subject), None)


def erasures(conn: Connection, chain_id: Any) -> Erasures:
    """The chain's erasures; those that cannot be read, which `verify` reports, are left out."""
    return Erasures(_readable(store.erasures(conn, chain_id)))


def _readable(rows: Iterable[tuple[int, int, bytes]]) -> Iterator[Erasure]:
    for seq, at, raw in rows:
        try:
            yield read_erasure(seq, at, raw)
        except Unreadable:
            continue


def _runs(told: Any) -> Iterator[Run]:
    for run in told if isinstance(told, list) else ():
        if isinstance(run, list) and len(run) == 2 and all(type(seq) is int for seq in run):
            yield run[0], run[1]


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
