"""The deliver process's dispatcher, without a database: its store and its transport answer as the test says."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from pipeline.store.deliveries.deliveries import Held
from schemas.catalog import Catalog
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from support.blobs import NO_BLOBS
from workers.delivery.dispatcher import Dispatcher
from workers.delivery.in_hand import LeasedBatch
from workers.net.lease_deadline import lease_end

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
    seconds = 4.0
    return LeasedBatch(lease, lease_end(time.time() + seconds), [(id_ // 1000, id_, 2) for id_ in ids], seconds)


def dispatcher(store: Any, catalog: Callable[[], Catalog], send: Any) -> Dispatcher:
    return Dispatcher(store, catalog, send, NO_BLOBS, mail_dns=False)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` is true, without a thread of the loop's executor."""
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110 - other threads make it true
            await asyncio.sleep(0.02)


def test_leases_are_renewed_though_failures_cannot_be_recorded(store: Store) -> None:
    known = catalog(Endpoint(1, "acme", "broken", "http://x"), Endpoint(2, "acme", "slow", "http://y", timeout=60))
    lease, failing = uuid4(), range(1000, 1050)

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
