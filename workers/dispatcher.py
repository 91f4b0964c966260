"""The batches in a deliver process' hands: each delivery waits for its endpoint's lane, is loaded, sent, and settled.

All on one event loop. A waiting delivery is an id, not a body, so that many may wait. If the process dies, what was not
settled is sent again, under the same id, when its message comes back or its lease ends.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from ops.blobs import Blobs
from pipeline.deliver import disabling, is_too_old, judge
from pipeline.store.deliveries import Held
from schemas.blob import LARGEST_INLINE
from schemas.catalog import Catalog
from schemas.delivery import Delivery, Tried
from schemas.endpoint import Endpoint
from workers.coalescer import Coalescer
from workers.delivery_store import DeliveryStore
from workers.fetching import Fetcher
from workers.leases import LeaseEnd, LeaseEnded, lease_end
from workers.mail_bodies import Documents
from workers.mail_maker import DocumentMaker
from workers.mail_reader import MailReader
from workers.semaphore import WeightedSemaphore
from workers.sending import Send
from workers.verdicts import Found, GivenUp, Missing, TooOld, Untried, Verdict

MAX_BYTES: Final = 64 * 1024 * 1024  # of bodies in memory, half for large ones: small ones need not wait for the blob store
SMALL: Final = 16 * 1024  # bytes of a body that waits for none that is larger: most are
MAX_SMALL: Final = 16 * 1024 * 1024  # bytes of those in memory, beside the others
MAX_SHARE: Final = 4 * 1024 * 1024  # of all, of one endpoint: large bodies for one that hangs are not in others' way
MARGIN: Final = 5.0  # seconds of a lease that are left for settling, or a tenth of it if that is less
BEAT: Final = 1.0  # seconds between two looks for leases that end soon
SETTLE_SECONDS: Final = 5.0  # for which a closing dispatcher waits for Postgres
STALE: Final = 1.0  # seconds after which every process has the catalog that Postgres has
CATALOG_LOOKS: Final = 30  # tenths of a second for an endpoint that the catalog does not have yet

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message hands over: deliveries under one lease."""

    lease: UUID
    ends: LeaseEnd
    deliveries: Sequence[tuple[int, int, int]]  # (endpoint id, delivery id, bytes of its body)
    whole: float  # seconds of the lease that were left when it was taken

    @property
    def margin(self) -> float:
        """Seconds at the lease's end that are kept for settling."""
        return min(MARGIN, self.whole / 10)


class Dispatcher:
    """Takes batches from construction to `close`, on the running event loop."""

    def __init__(
        self, store: DeliveryStore, catalog: Callable[[], Catalog], send: Send, blobs: Blobs, *, mail_dns: bool = True
    ) -> None:
        """`mail_dns`: whether keys may be looked up, to check the signatures of mails."""
        self._loop = asyncio.get_running_loop()
        self._catalog = catalog
        self._send = send
        self._store = store
        self._loader: Coalescer[Held, Found] = Coalescer("loader", store.load)
        self._settler: Coalescer[Verdict, None] = Coalescer("settler", store.settle)
        self._lanes: defaultdict[int, WeightedSemaphore] = defaultdict(WeightedSemaphore)
        self._small_bytes = WeightedSemaphore()
        self._bytes = WeightedSemaphore()
        self._large_bytes = WeightedSemaphore()
        self._fetcher = Fetcher(blobs, store)
        self._documents = Documents(self._fetcher, DocumentMaker(store.engine, blobs, MailReader(dns=mail_dns)))
        self._shares: defaultdict[int, WeightedSemaphore] = defaultdict(WeightedSemaphore)
        self._gone: dict[int, int] = {}  # endpoint id -> the version of the catalog that does not know it yet
        self._in_hand: dict[Held, asyncio.Task[None]] = {}
        self._ends: dict[Held, LeaseEnd] = {}  # of the leases of what is being sent
        self._sending: set[Held] = set()
        self._settling: set[Held] = set()
        self._closing = False
        self._heart = self._loop.create_task(self._keep_leases())

    def __len__(self) -> int:
        return len(self._in_hand)

    async def take(self, batch: Batch, patience: float, unawaited: Container[int]) -> set[int]:
        """Return when each delivery of `batch` is settled, handed back, or found to be no longer ours.

        Waits for `patience` seconds at most, and for none of the endpoints `unawaited`. Gives those that it waited for in vain:
        what is left of them goes on all the same. What is in hand already is left alone: its message was repeated.
        """
        awaited: dict[asyncio.Task[None], int] = {}
        for endpoint_id, delivery_id, size in batch.deliveries:
            held = (delivery_id, batch.lease)
            if held not in self._in_hand:
                task = self._in_hand[held] = self._loop.create_task(self._deliver(held, endpoint_id, size, batch))
                if endpoint_id not in unawaited:
                    awaited[task] = endpoint_id
        if not awaited:
            return set()
        _done, late = await asyncio.wait(awaited, timeout=patience)
        return {awaited[task] for task in late}

    async def close(self, grace: float) -> None:
        """Hand back what has not begun, give `grace` seconds to what is being sent, hand back the rest, settle, and end."""
        self._closing = True
        self._cancel(self._in_hand.keys() - self._sending - self._settling)
        await self._finished(grace)
        self._cancel(self._in_hand.keys() - self._settling)
        await self._finished(SETTLE_SECONDS)
        self._heart.cancel()
        await self._loader.close()
        await self._settler.close()
        self._fetcher.close()
        self._documents.close()

    def _cancel(self, which: Collection[Held]) -> None:
        for held in which:
            self._in_hand[held].cancel()

    async def _finished(self, seconds: float) -> None:
        if self._in_hand:
            await asyncio.wait(self._in_hand.values(), timeout=seconds)

    async def _deliver(self, held: Held, endpoint_id: int, size: int, batch: Batch) -> None:
        verdict: Verdict | None = None
        try:
            verdict = await self._verdict(held, endpoint_id, size, batch)
        except asyncio.CancelledError:
            verdict = Untried(held, "pending")
        except Exception as error:  # noqa: BLE001 - its lease ends, and it is claimed again
            _log.exception("delivery_abandoned", delivery=held[0])
            await self._loop.run_in_executor(None, self._store.abandon, held, error)
        self._settling.add(held)
        try:
            if verdict is not None:
                await self._settler.ask(verdict)
        finally:
            self._settling.discard(held)
            self._ends.pop(held, None)
            del self._in_hand[held]

    async def _verdict(self, held: Held, endpoint_id: int, size: int, batch: Batch) -> Verdict | None:
        endpoint = await self._endpoint(endpoint_id)
        if endpoint is None or self._closing:
            return Untried(held, "pending")
        start_by = self._loop.time() + batch.ends.until - time.time() - batch.margin - min(endpoint.timeout, batch.whole / 2)
        lane = self._lanes[endpoint.id]
        if not (lane.try_enter(1, endpoint.max_in_flight) or await lane.enter(1, endpoint.max_in_flight, start_by)):
            return Untried(held, "pending")
        try:
            return await self._with_room(held, endpoint_id, size, batch, start_by)
        finally:
            lane.leave(1)

    async def _with_room(self, held: Held, endpoint_id: int, size: int, batch: Batch, start_by: float) -> Verdict | None:
        """First of the endpoint's own room for bodies, then of everybody's."""
        share = self._shares[endpoint_id]
        if not (share.try_enter(size, MAX_SHARE) or await share.enter(size, MAX_SHARE, start_by)):
            return Untried(held, "pending")
        try:
            room, most = self._room(size)
            if not (room.try_enter(size, most) or await room.enter(size, most, start_by)):
                return Untried(held, "pending")
            try:
                return await self._try(held, endpoint_id, batch.ends)
            finally:
                room.leave(size)
        finally:
            share.leave(size)

    def _room(self, size: int) -> tuple[WeightedSemaphore, int]:
        """Where a body of `size` bytes is counted, and how many may be there."""
        if size <= SMALL:
            return self._small_bytes, MAX_SMALL
        return (self._bytes if size <= LARGEST_INLINE else self._large_bytes), MAX_BYTES // 2

    async def _try(self, held: Held, endpoint_id: int, ends: LeaseEnd) -> Verdict | None:
        endpoint = self._catalog().endpoints[endpoint_id]
        if endpoint.state != "active" or self._gone.get(endpoint.id) == self._catalog().version:
            return Untried(held, "aside", STALE)
        if self._store.is_held_off(endpoint.id):
            return Untried(held, "pending")
        found = await self._loader.ask(held)
        if isinstance(found, Missing):
            return GivenUp(held, found.value, endpoint.transport) if found is Missing.CONTENT else None
        if is_too_old(found, endpoint, datetime.now(UTC)):
            return TooOld(found, endpoint.transport)
        return await self._send_now(held, endpoint, found, ends)

    async def _send_now(self, held: Held, endpoint: Endpoint, found: Delivery, ends: LeaseEnd) -> Tried | Untried:
        self._sending.add(held)
        self._ends[held] = ends
        try:
            whole = await (self._fetcher if endpoint.body == "raw" else self._documents).whole(found)
            if isinstance(whole, Untried):
                return whole
            receipt = await self._send(endpoint, whole, endpoint.timeout, partial(self._check, held))
        except LeaseEnded:
            _log.warning("lease_ended_unsent", delivery=held[0])
            return Untried(held, "pending")
        finally:
            self._sending.discard(held)
        settlement = judge(found, endpoint, receipt, datetime.now(UTC), random.random())  # noqa: S311 - spreads retries
        if disabling(settlement) is not None:
            self._gone[endpoint.id] = self._catalog().version
        return Tried(found, settlement, endpoint.transport)

    def _check(self, held: Held) -> None:
        """Whoever stood still for longer than a lease must not go on where he stopped: the delivery may be somebody else's."""
        if self._ends[held].is_past:
            raise LeaseEnded

    async def _keep_leases(self) -> None:
        """What has begun keeps its lease for as long as it takes, whatever the lease's length."""
        while True:
            await asyncio.sleep(min(BEAT, self._store.lease / 6))
            soon = time.time() + self._store.lease / 2
            ending = [held for held, ends in self._ends.items() if ends.until < soon]
            if ending:
                await self._extend(ending)

    async def _extend(self, ending: Sequence[Held]) -> None:
        renewed = lease_end(time.time() + self._store.lease)
        try:
            kept = await self._loop.run_in_executor(None, self._store.extend, ending)
        except Exception as error:  # noqa: BLE001 - while Postgres is away, nobody else can claim them either
            _log.warning("leases_not_extended", deliveries=len(ending), error=type(error).__name__)
            return
        for held in self._in_hand.keys() & set(ending):
            if held in kept:
                self._ends[held] = renewed
            elif held in self._sending:
                self._in_hand[held].cancel()  # somebody else has it by now

    async def _endpoint(self, endpoint_id: int) -> Endpoint | None:
        """The endpoint, waited for if need be: the catalog may be a second older than a delivery."""
        for _ in range(CATALOG_LOOKS):
            endpoint = self._catalog().endpoints.get(endpoint_id)
            if endpoint is not None:
                return endpoint
            await asyncio.sleep(0.1)
        return None
