"""The deliver process's dispatcher, without a database: its store and its transport answer as the test says."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import structlog

from pipeline.delivery.settle_endpoint import HealthChange
from pipeline.store.deliveries.deliveries import Held
from schemas.catalog import Catalog
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from schemas.endpoint_health import Health
from support.blobs import NO_BLOBS
from workers.delivery import lanes
from workers.delivery.dispatcher import Dispatcher
from workers.delivery.in_hand import LeasedBatch
from workers.delivery.store import DeliveryStore
from workers.delivery.worker import DeliveryLoop
from workers.net.lease_deadline import lease_end
from workers.net.terms import Terms

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Store:
    """Has every delivery, and records what it is asked."""

    engine = None
    lease = 6.0

    def __init__(self) -> None:
        self.extended: set[Held] = set()
        self.abandoned: list[Held] = []
        self.unblocked = threading.Event()  # until then no failure can be recorded

    def load(self, held: Sequence[Held]) -> list[Delivery]:
        return [
            Delivery(id_, id_ // 1000, "acme", 0, uuid4(), 1, b"", None, b"{}", b"{}", b"", NOW, lease) for id_, lease in held
        ]

    def settle(self, verdicts: Sequence[object]) -> list[None]:
        return [None] * len(verdicts)

    def extend(self, held: Sequence[Held]) -> set[Held]:
        self.extended |= set(held)
        return set(held)

    def abandon(self, held: Held, _error: Exception) -> None:
        self.unblocked.wait(10)
        self.abandoned.append(held)

    def is_held_off(self, _endpoint_id: int) -> bool:
        return False


@pytest.fixture
def store() -> Store:
    return Store()


def catalog(*endpoints: Endpoint, version: int = 1) -> Catalog:
    return Catalog(version, {}, {}, {each.id: each for each in endpoints})


def batch(lease: UUID, ids: Iterable[int]) -> LeasedBatch:
    """Deliveries of an endpoint have ids from a thousand times its own."""
    seconds = 40.0
    return LeasedBatch(lease, lease_end(time.time() + seconds), [(id_ // 1000, id_, 2) for id_ in ids], seconds)


def dispatcher(store: Any, catalog: Callable[[], Catalog], send: Any) -> Dispatcher:
    return Dispatcher(store, catalog, send, NO_BLOBS, mail_dns=False)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` is true, without a thread of the loop's executor."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other threads make it true
            await asyncio.sleep(0.02)


def test_leases_are_renewed_though_failures_cannot_be_recorded(store: Store) -> None:
    known = catalog(Endpoint(1, "acme", "broken", "http://x"), Endpoint(2, "acme", "slow", "http://y", timeout=60))
    lease, failing = uuid4(), range(1000, 1050)
    store.lease = 100.0  # so what began is soon to be renewed

    async def main() -> None:
        async def send(endpoint: Endpoint, *_: object) -> Receipt:
            if endpoint.id == 1:
                raise RuntimeError("a fault of the transport")
            await asyncio.sleep(60)
            raise AssertionError

        one = dispatcher(store, lambda: known, send)
        await one.take(batch(lease, [2000, *failing]), 0.1, ())
        await until(lambda: (2000, lease) in store.extended)
        store.unblocked.set()
        await until(lambda: len(store.abandoned) == len(failing))
        await one.close(0.0)

    try:
        with structlog.testing.capture_logs():  # fifty tracebacks with every local variable take seconds
            asyncio.run(main())
    finally:
        store.unblocked.set()


@pytest.mark.parametrize(("seconds", "loaded_ahead"), [(0.0, False), (0.1, True)])
def test_far_from_postgres_what_waits_for_its_lane_is_loaded_meanwhile(
    store: Store, monkeypatch, seconds, loaded_ahead
) -> None:
    monkeypatch.setattr(lanes, "round_trip", lambda: seconds)
    known = catalog(Endpoint(1, "acme", "one", "http://x", max_in_flight=1))
    loaded, sending, answered = [], [], asyncio.Event()
    monkeypatch.setattr(store, "load", lambda held, load=store.load: loaded.extend(id_ for id_, _ in held) or load(held))

    async def main() -> None:
        async def send(_endpoint: Endpoint, delivery: Delivery, *_: object) -> Receipt:
            sending.append(delivery.id)
            if delivery.id > 1000:
                await answered.wait()
            return Receipt(NOW, 0.1, 200)

        one = dispatcher(store, lambda: known, send)
        await one.take(batch(uuid4(), [1000]), 60, ())  # from now on it is not on trial
        await one.take(batch(uuid4(), [1001, 1002]), 0.0, ())
        await until(lambda: len(sending) == 2 and (len(loaded) == 3 or not loaded_ahead))
        assert loaded_ahead == (1002 in loaded)
        assert [1000, 1001] == sending, "its lane has one place"
        answered.set()
        await until(lambda: not len(one))
        await one.close(0.0)

    asyncio.run(main())

    assert [1000, 1001, 1002] == sending


def test_what_waited_long_for_its_lane_is_loaded_again(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(lanes, "round_trip", lambda: 0.1)
    monkeypatch.setattr("workers.delivery.dispatcher.FRESH", 0.0)
    known, loaded = catalog(Endpoint(1, "acme", "one", "http://x")), []
    monkeypatch.setattr(store, "load", lambda held, load=store.load: loaded.extend(id_ for id_, _ in held) or load(held))

    async def main() -> None:
        one = dispatcher(store, lambda: known, send_unless_unknown)
        await one.take(batch(uuid4(), [1000]), 60, ())
        await one.take(batch(uuid4(), [1001]), 60, ())
        await one.close(0.0)

    asyncio.run(main())

    assert [1000, 1001, 1001] == loaded


def with_one_proven(number: int) -> Catalog:
    return catalog(*(Endpoint(id_, "acme", f"e{id_}", "http://x", timeout=60) for id_ in range(1, number + 1)))


async def send_unless_unknown(endpoint: Endpoint, *_: object) -> Receipt:
    """Only the first endpoint answers."""
    if endpoint.id > 1:
        await asyncio.sleep(60)
    return Receipt(NOW, 0.1, 200)


def test_threads_do_not_all_wait_for_endpoints_that_were_never_seen_to_answer(store: Store) -> None:
    threads, known = 32, with_one_proven(40)

    async def main() -> None:
        one = dispatcher(store, lambda: known, send_unless_unknown)
        await one.take(batch(uuid4(), [1000]), 60, ())
        waiting = [asyncio.create_task(one.take(batch(uuid4(), [id_ * 1000]), 60, ())) for id_ in range(2, 2 + threads)]

        await until(lambda: sum(each.done() for each in waiting) >= threads // 2)
        assert set() == await one.take(batch(uuid4(), [1001, 40_000]), 60, ()), "it waits for the proven endpoint only"
        assert not all(each.done() for each in waiting), "if this process dies, the broker returns these at once"

        for each in waiting:
            each.cancel()
        await one.close(0.0)

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [60.0, 0.01])
def test_few_deliveries_to_endpoints_never_seen_to_answer_are_sent_at_once(store: Store, monkeypatch, seconds) -> None:
    monkeypatch.setattr("workers.delivery.trials.SECONDS", seconds)
    monkeypatch.setattr("workers.delivery.trials.AT_ONCE", 20)
    known, sent = with_one_proven(101), set()

    async def main() -> None:
        async def send(endpoint: Endpoint, *more: object) -> Receipt:
            sent.add(endpoint.id)
            return await send_unless_unknown(endpoint, *more)

        one = dispatcher(store, lambda: known, send)
        await one.take(batch(uuid4(), [1000]), 60, ())
        await one.take(batch(uuid4(), [id_ * 1000 for id_ in range(2, 102)]), 0.0, ())
        await until(lambda: len(sent) >= 21)
        sent.discard(1)
        assert set() == await one.take(batch(uuid4(), [1001]), 60, ())
        assert 1 in sent
        if seconds < 1:
            await until(lambda: len(sent) == 101)
        assert (21 if seconds > 1 else 101) == len(sent)
        await one.close(0.0)

    asyncio.run(main())


def test_inactive_endpoints_are_forgotten_unless_something_of_them_is_in_hand(store: Store, monkeypatch) -> None:
    monkeypatch.setattr("workers.delivery.dispatcher.BEAT", 0.01)
    endpoints = [Endpoint(id_, "acme", f"e{id_}", "http://x") for id_ in (1, 2, 3)]
    known = [catalog(*endpoints)]

    async def main() -> None:
        async def send(endpoint: Endpoint, *_: object) -> Receipt:
            if endpoint.id == 3:
                await asyncio.sleep(60)
            return Receipt(NOW, 0.1, 200, wish="disable" if endpoint.id == 1 else None)

        one = dispatcher(store, lambda: known[-1], send)
        await one.take(batch(uuid4(), [1000, 2000, 3000]), 60, {3})
        assert {1, 2, 3} == one._lanes._lanes.keys() == one._quotas._shares.keys()
        assert {1: 1} == one._disabled
        known.append(catalog(*(replace(each, state="active" if each.id == 2 else "removed") for each in endpoints), version=2))
        await until(lambda: {2, 3} == one._lanes._lanes.keys() == one._quotas._shares.keys())
        assert {} == one._disabled
        await one.close(0.0)

    asyncio.run(main())


def test_a_slow_endpoint_is_forgotten_when_it_is_awaited_again(monkeypatch) -> None:
    monkeypatch.setattr("workers.delivery.worker.SLOW", 0.0)
    nothing: Any = None
    loop = DeliveryLoop(nothing, nothing, Terms("waxseal/test", ()), NO_BLOBS)
    unawaited: list[set[int]] = []

    def take(batch: LeasedBatch, _patience: float, slow: set[int]) -> set[int]:
        unawaited.append(slow)
        return {endpoint_id for endpoint_id, _id, _size in batch.deliveries}  # none is done in time

    def call(late: set[int]) -> "Future[set[int]]":
        done: Future[set[int]] = Future()
        done.set_result(late)
        return done

    loop._dispatcher = cast("Any", SimpleNamespace(take=take))
    monkeypatch.setattr(loop, "_call", call)
    for endpoint_id in range(1, 10):
        loop.deliver(uuid4().hex, time.time() + 60, [(endpoint_id, 1, 1)])

    loop._loop.close()

    assert [set()] * 9 == unawaited
    assert {9} == loop._slow.keys()


def test_an_endpoint_that_is_no_longer_held_off_is_forgotten(monkeypatch) -> None:
    monkeypatch.setattr("workers.delivery.store.HELD_OFF", timedelta(0))
    nothing: Any = None
    one = DeliveryStore(nothing, 60.0)
    for endpoint_id in range(1, 10):
        one._hold_off([HealthChange(endpoint_id, Health(), Health(not_before=datetime.max.replace(tzinfo=UTC)))])

    assert {9} == one._held_off.keys()
