"""Fetches large bodies from the blob store just before they are sent, a few at a time, on threads of its own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import structlog

from ops.runtime.blobs import Blobs
from pipeline.errors import BlobLost, BlobsAway
from schemas.delivery import Delivery
from workers.delivery.not_sent import Untried
from workers.delivery.store import DeliveryStore

AT_ONCE: Final = 8
AWAY_SECONDS: Final = 15.0  # until a store that was away is tried again, and deliveries of bodies in it are due again
LOST_SECONDS: Final = 300.0  # until a body that the store has lost is looked for again

_log = structlog.get_logger()


class BodyFetcher:
    """From construction to `close`, on the running event loop."""

    def __init__(self, blobs: Blobs, store: DeliveryStore) -> None:
        self._loop = asyncio.get_running_loop()
        self._blobs = blobs
        self._store = store
        self._threads = ThreadPoolExecutor(AT_ONCE, "fetcher")
        self._away_until = 0.0  # on the loop's clock

    async def whole(self, delivery: Delivery) -> Delivery | Untried:
        """The delivery with its body. If that cannot be read, no attempt is counted and the delivery is due again later.

        While the store is away it is tried every 15 seconds. A body that it has lost becomes an open dead letter, and is
        looked for every five minutes until it is restored or an operator discards it.
        """
        if delivery.blob is None:
            return delivery
        held = (delivery.id, delivery.lease)
        if self._loop.time() < self._away_until:
            return Untried(held, "pending", wait=AWAY_SECONDS)
        try:
            body = await self._loop.run_in_executor(self._threads, self._blobs.get, delivery.tenant, delivery.blob)
        except BlobsAway as error:
            self._away_until = self._loop.time() + AWAY_SECONDS
            _log.warning("blob_store_away", error=str(error), again_in=AWAY_SECONDS)
            return Untried(held, "pending", wait=AWAY_SECONDS)
        except BlobLost as error:
            _log.error("blob_lost", tenant=delivery.tenant, delivery=delivery.id, kind=error.kind, detail=str(error))
            await self._loop.run_in_executor(self._threads, self._store.abandon, held, error)
            return Untried(held, "pending", wait=LOST_SECONDS)
        return replace(delivery, body=body)

    def close(self) -> None:
        """Shut the threads down without waiting; each ends when its call does."""
        self._threads.shutdown(wait=False, cancel_futures=True)
