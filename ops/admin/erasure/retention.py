"""Carries out retention: content that is older than its policy allows is erased, each batch with an erasure entry.

Progress is kept per policy, in slices of time, so a run that is killed goes on where it stopped. Once a week each policy is
begun from the oldest entry again, for what was recorded while a clock was wrong. No clock that jumps erases anything: if the
time since the last run is not that of an ordinary pause, a run is held until somebody has looked.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, noted
from ops.admin.read_session import snapshot
from ops.admin.views import View, rfc3339
from ops.runtime.db import persist, sqlstate, transaction
from pipeline.errors import ChainBroken
from pipeline.ledger import erase as rule
from pipeline.ledger.erase import Batch, Order
from pipeline.store.ledger import erasure
from pipeline.store.ledger import retention as store
from pipeline.store.ledger.retention import DueContent, DueTotal, Policy, Progress, Run
from schemas.ledger.erasure import Erased

LONGEST_PAUSE: Final = timedelta(days=7)  # between two runs; longer than that, the clock may have jumped
APART: Final = timedelta(minutes=1)  # this machine's clock and Postgres' at most
BACK: Final = timedelta(minutes=5)  # that a clock may be set back
ANEW: Final = timedelta(days=7)  # after which a policy is begun from the oldest entry
SLICE: Final = 5000  # entries looked up at once
ROWS: Final = 500  # entries erased in one transaction
CHAINS: Final = 50  # in one transaction
PATIENCE: Final = 30.0  # seconds for which a batch that met a deadlock or a lost connection is tried again
WHO: Final = "waxseal retention"

_WIDTH: Final = 6 * 3600 * 1_000_000  # microseconds of the first slice
_WIDEST: Final = 2**40
_SLOW: Final = 2.0  # seconds of a look-up after which slices get narrower
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DuePolicy:
    """A policy with what it would erase now."""

    policy: Policy
    before: datetime
    total: DueTotal


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a run. `behind`: seconds by which the policy that is most behind is late."""

    erased: Erased
    more: bool = False
    held: str | None = None
    behind: float = 0.0
    unsound: Sequence[UUID] = ()  # chains that nothing can be appended to, so that nothing was erased from them


def due(engine: Engine, now: datetime) -> list[DuePolicy]:
    """Every policy with what it would erase now; counts it in full, which reads the ledger."""
    with snapshot(engine) as conn:
        return [
            DuePolicy(each, _before(each, now), store.count_due(conn, each, microseconds(_before(each, now))))
            for each in store.policies(conn)
        ]


def due_policy_view(due: DuePolicy) -> View:
    """What a retention policy would erase."""
    oldest = None if due.total.oldest is None else _EPOCH + timedelta(microseconds=due.total.oldest)
    return {
        "tenant": due.policy.tenant,
        "source": due.policy.source or None,
        "retention": due.policy.seconds,
        "before": rfc3339(due.before),
        "entries": due.total.entries,
        "bytes": due.total.bytes,
        "oldest": rfc3339(oldest),
    }


def last_run(engine: Engine) -> Run | None:
    """The last run; None if there was none."""
    with snapshot(engine) as conn:
        return store.last_run(conn)


def run_retention(
    engine: Engine,
    keys: Mapping[str, bytes],
    now: datetime,
    most: int,
    *,
    who: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[int], None] = lambda _done: None,
) -> Ran:
    """Erases what is due, about `most` entries at most. `keys` are the tenants' fingerprint keys.

    A run that nobody asked for erases nothing when it is the first, or when the clock may have jumped. With `who` it is an
    operator's, who has looked at the clock. Two runs at once do everything once.
    """
    with transaction(engine) as conn:
        last = store.last_run(conn)
        held = None if who else doubt(last, now, store.clock(conn))
        if held is not None or (last is None and who is None):
            store.put_run(conn, Run(now, 0, more=False, held=None) if last is None else replace(last, held=held))
            return Ran(Erased(), held=held)
        policies = [each for each in store.policies(conn) if each.tenant in keys]
    erased, behind, unsound = Erased(), 0.0, set[UUID]()

    def left() -> int:
        return most - erased.entries

    for policy in policies:
        done = _Policy(engine, policy, keys, now, who or WHO)
        for each in done.slices(left, stop):
            erased += each
            show(erased.entries)
        behind = max(behind, done.lag)
        unsound |= done.unsound
    more = behind > 0
    with transaction(engine) as conn:
        store.put_run(conn, Run(now, erased.entries, more, None))
    return Ran(erased, more, None, behind, sorted(unsound))


def doubt(last: Run | None, now: datetime, database: datetime) -> str | None:
    """Why the clock cannot be trusted with erasing; None if it can."""
    if abs(now - database) > APART:
        return f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}, that of Postgres {database:%Y-%m-%d %H:%M:%S}"
    if last is not None and now < last.ran_at - BACK:
        return f"the clock says {now:%Y-%m-%d %H:%M}, before the last run at {last.ran_at:%Y-%m-%d %H:%M}"
    if last is not None and now - last.ran_at > LONGEST_PAUSE:
        return f"the clock is {(now - last.ran_at).days} days after the last run at {last.ran_at:%Y-%m-%d %H:%M}"
    return None


class _Policy:
    """One policy in one run."""

    def __init__(self, engine: Engine, policy: Policy, keys: Mapping[str, bytes], now: datetime, who: str) -> None:
        self._engine = engine
        self._policy = policy
        self._keys = keys
        self._now = now
        days = policy.seconds / 86_400
        self._order = Order(who, f"retention of {days:g} days")
        self._until = microseconds(_before(policy, now))
        self._width = _WIDTH
        self.unsound: set[UUID] = set()
        self._progress = self._begun()

    @property
    def lag(self) -> float:
        """Seconds of recorded time that are due and not looked at."""
        return max(0.0, (self._until - self._progress.through) / 1e6)

    def slices(self, left: Callable[[], int], stop: Callable[[], bool]) -> Iterator[Erased]:
        """Erases slice by slice, while `left` says that more may be erased."""
        while self._progress.through < self._until and left() > 0 and not stop():
            until = min(self._until, self._progress.through + self._width)
            limit = min(SLICE, left())
            began = time.monotonic()
            with snapshot(self._engine) as conn:
                found = store.due(conn, self._policy, self._progress.through, until, limit)
            took = time.monotonic() - began
            erased = self._erased(found, stop) if found else Erased()
            yield erased
            if stop():
                return
            full = len(found) == limit
            # Many entries have one time: those of the last time are looked up again, unless none of them could be erased.
            self._reached(found[-1].at + (not erased.entries) if full else until)
            self._width = min(_WIDEST, max(1, self._width // 2 if full or took > _SLOW else self._width * 2))

    def _erased(self, found: Sequence[DueContent], stop: Callable[[], bool]) -> Erased:
        policy = self._policy
        about = {"tenant": policy.tenant, "source": policy.source or None, "retention": policy.seconds}
        total = Erased()
        with noted(self._engine, Act(self._order.by, "retention", about), len(found)) as tally:
            for batch in _batches(found):
                if stop():
                    break
                total += self._sound(batch)
                tally.done = total.entries
        return total

    def _sound(self, listed: Sequence[DueContent]) -> Erased:
        """Erases the batch; if a chain in it is not sound, the others."""
        try:
            return persist(self._engine, PATIENCE, lambda conn: self._batch(conn, listed))
        except Exception as error:
            if not (isinstance(error, ChainBroken) or sqlstate(error).startswith("23")):
                raise
        by_chain = _by_chain(listed)
        if len(by_chain) == 1:
            self.unsound |= by_chain.keys()
            return Erased()
        return sum((self._sound(each) for each in by_chain.values()), Erased())

    def _batch(self, conn: Connection, listed: Sequence[DueContent]) -> Erased:
        chains = list(dict.fromkeys(each.chain_id for each in listed))
        erasure.serialise(conn, chains)
        present = store.present(conn, listed)
        found = [Batch(chain, present[chain.chain_id]) for chain in erasure.chains(conn, list(present))]
        return rule.erase(conn, found, self._order, self._keys, datetime.now(UTC)) if found else Erased()

    def _begun(self) -> Progress:
        with transaction(self._engine) as conn:
            reached = store.progress(conn, self._policy)
            same = reached is not None and reached.policy == self._policy.fingerprint
            if reached is not None and same and self._now - reached.begun_at < ANEW:
                return reached
            first = store.first(conn)
            begun = Progress(self._policy.fingerprint, self._until if first is None else first, self._now)
            store.put_progress(conn, self._policy, begun)
            return begun

    def _reached(self, through: int) -> None:
        self._progress = replace(self._progress, through=through)
        with transaction(self._engine) as conn:
            store.put_progress(conn, self._policy, self._progress)


def _batches(found: Sequence[DueContent]) -> Iterator[Sequence[DueContent]]:
    """Whole chains together, at most `CHAINS` of them and `ROWS` entries in a batch."""
    batch: list[DueContent] = []
    chains = 0
    for entries in _by_chain(found).values():
        rest = iter(sorted(entries, key=lambda each: each.seq))
        while part := list(islice(rest, ROWS)):
            if batch and (len(batch) + len(part) > ROWS or chains == CHAINS):
                yield batch
                batch, chains = [], 0
            batch += part
            chains += 1
    if batch:
        yield batch


def _by_chain(found: Sequence[DueContent]) -> dict[UUID, list[DueContent]]:
    by_chain: dict[UUID, list[DueContent]] = {}
    for each in found:
        by_chain.setdefault(each.chain_id, []).append(each)
    return by_chain


def microseconds(moment: datetime) -> int:
    """The moment as entries record it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _before(policy: Policy, now: datetime) -> datetime:
    return now - timedelta(seconds=policy.seconds)
