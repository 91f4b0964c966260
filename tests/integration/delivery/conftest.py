"""Fixtures of the tests of deliveries: a database and a pool for each module, an endpoint on the sink, a delivery loop."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.delivery.addresses import LOOPBACK, networks
from support.blobs import NO_BLOBS
from support.emptying import database, engine
from support.sending import SECRET
from workers.delivery.store import DeliveryStore
from workers.delivery.worker import DeliveryLoop
from workers.live_catalog import CatalogWatch
from workers.net.terms import Terms

__all__ = ["database", "engine"]


@pytest.fixture
def endpoint(database, sink) -> Callable[..., int]:
    """Adds an endpoint on a path of the sink; returns its id."""
    database.add_tenant()

    def add(path: str, **settings: object) -> int:
        name = path.strip("/").replace("/", "-").replace("_", "-")
        return database.add_endpoint(name, sink.url(path), SECRET, **settings)

    return add


@pytest.fixture
def watch(database, engine) -> Iterator[CatalogWatch]:
    """The catalog that the delivery loop works with."""
    watch = CatalogWatch(engine, database.vault)
    watch.start()
    assert watch.wait(30)
    yield watch
    watch.stop()


@pytest.fixture
def lease() -> float:
    """The seconds for which the delivery loop extends leases; a module may have its own."""
    return 90.0


@pytest.fixture
def delivery_loop(engine, watch, lease) -> Iterator[DeliveryLoop]:
    """A delivery loop in this process that may call servers on this machine."""
    loop = DeliveryLoop(DeliveryStore(engine, lease), watch, Terms("waxseal/test", networks(LOOPBACK)), NO_BLOBS)
    loop.open(lambda: None)
    yield loop
    if loop._thread.is_alive():  # else the test has closed it
        loop.close(0.2)
