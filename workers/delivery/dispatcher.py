"""The batches that a deliver process works on: each delivery waits for its endpoint's lane, is loaded, sent, and settled.

All on one event loop. A waiting delivery is an id, not a body, so that many may wait. If the process dies, unsettled
deliveries are sent again, under the same id, when their message is redelivered or their lease ends.
"""

import asyncio
import random
import time
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.runtime.blobs import Blobs
from ops.runtime.driver.db_distance import round_trip
from ops.telemetry.tracing import delivery_spans
from ops.telemetry.tracing.switch import active, within
from pipeline.deliver import is_too_old, judge
from pipeline.delivery.settle_endpoint import disabling
from pipeline.store.deliveries.deliveries import Held
from schemas.catalog import Catalog
from schemas.delivery import Delivery, Receipt, Tried
from schemas.endpoint import Endpoint
from workers.delivery.bodies import BodyFetcher
from workers.delivery.body_quotas import BodyQuotas
from workers.delivery.coalescer import Coalescer
from workers.delivery.document_bodies import Documents
from workers.delivery.in_hand import Awaited, DeliveryInHand, LeasedBatch
from workers.delivery.lanes import Lanes, may_load_ahead
from workers.delivery.not_sent import Found, GivenUp, Missing, TooOld, Untried, Verdict
from workers.delivery.store import DeliveryStore
from workers.delivery.trials import AWAITED, Trials
from workers.documents.mail_parser import MailParser
from workers.documents.maker import DocumentMaker
from workers.net.lease_deadline import LeaseEnded, lease_end
from workers.transports.transport import Send

BEAT: Final = 1.0  # seconds between two checks for leases that end soon
SETTLE_APART: Final = 0.01  # seconds between settlements: no caller waits, and a batch costs little more than one delivery
SETTLE_SECONDS: Final = 5.0  # for which a closing dispatcher waits for Postgres
FRESH: Final = 1.0  # seconds for which what was loaded ahead is used
STALE: Final = 1.0  # seconds after which every process has the catalog that Postgres has
CATALOG_LOOKS: Final = 30  # polls, 0.1 s apart, for an endpoint that the catalog does not have yet

_log = structlog.get_logger()


class Dispatcher:
    """Takes batches from construction to `close`, on the running event loop."""

    def __init__(
        self, store: DeliveryStore, catalog: Callable[[], Catalog], send: Send, blobs: Blobs, *, mail_dns: bool = True
    ) -> None:
        """`mail_dns`: whether keys may be looked up in DNS to check the signatures of mails."""
        self._loop = asyncio.get_running_loop()
        self._catalog = catalog
        self._send = send
        self._store = store
        self._loader: Coalescer[Held, Found] = Coalescer("loader", store.load, round_trip=round_trip)
        self._settler: Coalescer[Verdict, None] = Coalescer("settler", store.settle, SETTLE_APART, round_trip)
        self._lanes = Lanes()
        self._quotas, self._fetcher = BodyQuotas(), BodyFetcher(blobs, store)
        self._documents = Documents(self._fetcher, DocumentMaker(store.engine, blobs, MailParser(dns=mail_dns)))
        self._trials = Trials()
        self._trials_awaited = 0  # calls of `take` that wait for deliveries on trial
        self._disabled: dict[int, int] = {}  # endpoint id -> the catalog version that does not show it as disabled yet
        self._pruned: int | None = None  # the catalog version for which state of inactive endpoints was dropped
        self._in_hand: dict[Held, DeliveryInHand] = {}
        self._closing = False
        # Each has one thread and one connection: failures to record, however many, must not delay the leases.
        self._renewer = ThreadPoolExecutor(1, "leases")
        self._recorder = ThreadPoolExecutor(1, "failures")
        self._heart = self._loop.create_task(self._keep_leases())

    def __len__(self) -> int:
        return len(self._in_hand)

    async def take(self, batch: LeasedBatch, patience: float, unawaited: Container[int]) -> set[int]:
        """Return when each delivery of `batch` is settled, handed back, or found to be no longer ours.

        Waits for `patience` seconds at most, and not for the endpoints `unawaited`, nor for those on trial if other calls do
        so already. Gives the endpoints whose deliveries were not finished in time; those go on all the same. Deliveries in
        hand already are ignored: their message was redelivered.
        """
        awaited, proven, trials = Awaited(self._loop), self._trials.proven, 0
        takes_trials = self._trials_awaited < AWAITED
        for endpoint_id, delivery_id, size in batch.deliveries:
            held = (delivery_id, batch.lease)
            if held not in self._in_hand:
                on_trial = endpoint_id not in proven
                waits = (takes_trials or not on_trial) and endpoint_id not in unawaited
                hand = DeliveryInHand(held, endpoint_id, size, batch, batch.ends, awaited if waits else None)
                if waits:
                    awaited.hands.add(hand)
                    trials |= on_trial
                self._in_hand[held] = hand
                hand.task = self._loop.create_task(self._deliver(hand))
        self._trials_awaited += trials
        try:
            return await awaited.wait(patience)
        finally:
            self._trials_awaited -= trials

    async def close(self, grace: float) -> None:
        """Hand back what is not being sent, let sends finish for `grace` seconds, hand back the rest, settle, and end."""
        self._closing = True
        self._cancel(hand for hand in self._in_hand.values() if not (hand.sending or hand.settling))
        await self._finished(grace)
        self._cancel(hand for hand in self._in_hand.values() if not hand.settling)
        await self._finished(SETTLE_SECONDS)
        self._heart.cancel()
        await self._loader.close()
        await self._settler.close()
        self._fetcher.close()
        self._documents.close()
        for threads in (self._renewer, self._recorder):
            threads.shutdown(wait=False, cancel_futures=True)

    def _cancel(self, which: Iterable[DeliveryInHand]) -> None:
        for hand in which:
            if hand.task is not None:
                hand.task.cancel()

    async def _finished(self, seconds: float) -> None:
        if tasks := [hand.task for hand in self._in_hand.values() if hand.task is not None]:
            await asyncio.wait(tasks, timeout=seconds)

    async def _deliver(self, hand: DeliveryInHand) -> None:
        verdict: Verdict | None = None
        try:
            verdict = await self._verdict(hand)
        except asyncio.CancelledError:
            verdict = Untried(hand.held, "pending")
        except Exception as error:  # noqa: BLE001 - the lease ends, and a relay claims it again
            _log.exception("delivery_abandoned", delivery=hand.held[0])
            await self._loop.run_in_executor(self._recorder, self._store.abandon, hand.held, error)
        hand.settling = True
        try:
            if verdict is not None:
                await self._settler.ask(verdict)
        finally:
            if hand.lane is not None:
                hand.lane()
            del self._in_hand[hand.held]
            if hand.awaited is not None:
                hand.awaited.done(hand)

    async def _verdict(self, hand: DeliveryInHand) -> Verdict | None:
        endpoint = self._catalog().endpoints.get(hand.endpoint_id) or await self._endpoint(hand.endpoint_id)
        if endpoint is None or self._closing:
            return Untried(hand.held, "pending")
        on_trial = endpoint.id not in self._trials.proven
        if (on_trial or not may_load_ahead(hand.size)) and not await self._in_lane(hand, endpoint):
            return Untried(hand.held, "pending")
        verdict = await (self._on_trial if on_trial else self._with_quota)(hand, endpoint)
        if isinstance(verdict, Tried):
            self._trials.tried(endpoint.id, delivered=verdict.settlement.outcome == "delivered")
        if hand.lane is not None and (not isinstance(verdict, Tried) or verdict.settlement.outcome == "delivered"):
            leave, hand.lane = hand.lane, None
            leave()  # a failure keeps its place until it is settled: the breaker must count it before others are tried
        return verdict

    def _start_by(self, hand: DeliveryInHand, endpoint: Endpoint) -> float:
        """The latest time to begin the delivery and still settle it under its lease, on the loop's clock."""
        left = hand.batch.ends.until - time.time() - hand.batch.margin
        return self._loop.time() + left - min(endpoint.timeout, hand.batch.whole / 2)

    async def _in_lane(self, hand: DeliveryInHand, endpoint: Endpoint) -> bool:
        """Wait for a place in the endpoint's lane; give whether `hand` has it."""
        hand.lane = await self._lanes.enter(endpoint.id, endpoint.max_in_flight, self._start_by(hand, endpoint))
        return hand.lane is not None

    async def _on_trial(self, hand: DeliveryInHand, endpoint: Endpoint) -> Verdict | None:
        if (leave := await self._trials.enter(self._start_by(hand, endpoint))) is None:
            return Untried(hand.held, "pending")
        try:
            return await self._with_quota(hand, endpoint)
        finally:
            leave()

    async def _with_quota(self, hand: DeliveryInHand, endpoint: Endpoint) -> Verdict | None:
        if (leave := await self._quotas.enter(endpoint.id, hand.size, self._start_by(hand, endpoint))) is None:
            return Untried(hand.held, "pending")
        try:
            return await self._try(hand)
        finally:
            leave()

    async def _try(self, hand: DeliveryInHand) -> Verdict | None:
        endpoint = self._catalog().endpoints[hand.endpoint_id]
        if (untried := self._not_now(hand, endpoint)) is not None:
            return untried
        found = await (self._loader.ask(hand.held) if hand.lane is not None else self._loaded_ahead(hand, endpoint))
        if isinstance(found, Untried):
            return found
        endpoint = self._catalog().endpoints[hand.endpoint_id]
        if isinstance(found, Missing):
            return GivenUp(hand.held, found.value, endpoint.transport) if found is Missing.CONTENT else None
        if endpoint.max_age is not None and is_too_old(found, endpoint, datetime.now(UTC)):
            return TooOld(found, endpoint.transport)
        return await self._send_now(hand, endpoint, found)

    def _not_now(self, hand: DeliveryInHand, endpoint: Endpoint) -> Untried | None:
        if endpoint.state != "active" or self._disabled.get(endpoint.id) == self._catalog().version:
            return Untried(hand.held, "aside", STALE)
        return Untried(hand.held, "pending") if self._store.is_held_off(endpoint.id) else None

    async def _loaded_ahead(self, hand: DeliveryInHand, endpoint: Endpoint) -> Found | Untried:
        """Load, then wait for a place in the lane, and load again if that took long."""
        if (leave := await self._lanes.load_ahead(endpoint.id, hand.size, self._start_by(hand, endpoint))) is None:
            return Untried(hand.held, "pending")
        try:
            found, loaded = await self._loader.ask(hand.held), self._loop.time()
            if not await self._in_lane(hand, endpoint):
                return Untried(hand.held, "pending")
        finally:
            leave()
        if (untried := self._not_now(hand, self._catalog().endpoints[endpoint.id])) is not None:
            return untried
        return found if self._loop.time() < loaded + FRESH else await self._loader.ask(hand.held)

    async def _send_now(self, hand: DeliveryInHand, endpoint: Endpoint, found: Delivery) -> Tried | Untried:
        hand.begun = hand.sending = True
        spans = active()
        if spans is not None:
            found = replace(found, trace=delivery_spans.attempt(spans, found))
            delivery_spans.begun(spans, found, hand.batch.ends.until - self._store.lease, hand.batch.claim)
        try:
            with within(found.trace):
                sent = await self._sent(hand, endpoint, found)
        except LeaseEnded:
            _log.warning("lease_ended_unsent", delivery=hand.held[0])
            return Untried(hand.held, "pending")
        finally:
            hand.sending = False
        if isinstance(sent, Untried):
            return sent
        settlement = judge(found, endpoint, sent, datetime.now(UTC), random.random())  # noqa: S311 - spreads retries
        if spans is not None:
            delivery_spans.attempted(spans, endpoint, found, settlement)
        if disabling(settlement) is not None:
            self._disabled[endpoint.id] = self._catalog().version
        return Tried(found, settlement, endpoint.transport)

    async def _sent(self, hand: DeliveryInHand, endpoint: Endpoint, found: Delivery) -> Receipt | Untried:
        whole: Delivery | Untried = found
        if endpoint.body != "raw":
            whole = await self._documents.whole(found)
        elif found.blob is not None:
            whole = await self._fetcher.whole(found)
        return whole if isinstance(whole, Untried) else await self._send(endpoint, whole, endpoint.timeout, hand.check)

    async def _keep_leases(self) -> None:
        """Extend the leases of deliveries that have begun until they are settled, whatever the lease's length."""
        while True:
            await asyncio.sleep(min(BEAT, self._store.lease / 6))
            self._forget_inactive(self._catalog())
            soon = time.time() + self._store.lease / 2
            if ending := [hand.held for hand in self._in_hand.values() if hand.begun and hand.ends.until < soon]:
                await self._extend(ending)

    def _forget_inactive(self, catalog: Catalog) -> None:
        """Drop the state of endpoints that are inactive and have nothing in hand, once per version of the catalog.

        An endpoint that still has something in hand is dropped with a later version.
        """
        if catalog.version == self._pruned:
            return
        enabled = {id_ for id_, endpoint in catalog.endpoints.items() if endpoint.state == "active"}
        kept = enabled | {hand.endpoint_id for hand in self._in_hand.values()}
        self._lanes.keep(kept)
        self._quotas.keep(kept)
        self._trials.proven &= enabled
        self._disabled = {id_: version for id_, version in self._disabled.items() if version == catalog.version}
        self._pruned = catalog.version

    async def _extend(self, ending: Sequence[Held]) -> None:
        renewed = lease_end(time.time() + self._store.lease)
        try:
            kept = await self._loop.run_in_executor(self._renewer, self._store.extend, ending)
        except Exception as error:  # noqa: BLE001 - while Postgres is away, no relay can claim them either
            _log.warning("leases_not_extended", deliveries=len(ending), error=type(error).__name__)
            return
        for hand in [self._in_hand[held] for held in ending if held in self._in_hand]:
            if hand.held in kept:
                hand.ends = renewed
            elif hand.sending and hand.task is not None:
                hand.task.cancel()  # another process may have it by now

    async def _endpoint(self, endpoint_id: int) -> Endpoint | None:
        """The endpoint, after a wait if necessary: the catalog may be a second older than a delivery."""
        for _ in range(CATALOG_LOOKS):
            if (endpoint := self._catalog().endpoints.get(endpoint_id)) is not None:
                return endpoint
            await asyncio.sleep(0.1)
        return None
