"""The relay: claims the deliveries that are due and hands them to the actors, in batches per endpoint.

Woken by Postgres when something was planned, and by the clock. Any number of relays may run. What a relay has claimed when it
dies is claimed again when the lease ends; what it cannot publish it hands back.
"""

import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Connection, Engine

from ops import health
from ops import log as logs
from ops.db import make_engine, passes, transaction
from ops.settings import Settings, require
from pipeline.store import deliveries
from schemas.delivery import Claim
from workers.broker import DELIVER_TOPOLOGY, envelope, hush_pika
from workers.publisher_thread import PublisherThread
from workers.upkeep import Upkeep

CLAIM: Final = 500  # deliveries in one claim
BATCH: Final = 50  # deliveries in one message
BATCH_BYTES: Final = 4 * 1024 * 1024  # of their bodies
IN_FLIGHT: Final = 4  # claims that wait for the broker's confirms
CONFIRM_SECONDS: Final = 5.0
POLL: Final = 1.0  # seconds after which the relay looks unasked
FULL: Final = 0.01  # seconds until it looks again when hardly more may be leased
MEAGRE: Final = 0.1  # seconds after which it claims all the same, however few that is
SWEEP: Final = 1.0  # seconds between two looks for leases that have ended
RECONNECT: Final = (0.2, 5.0)  # seconds, first and longest wait

_log = structlog.get_logger()


class Bell:
    """Rings when Postgres says that something is due. Away while Postgres is; then the clock has to do."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._conn: Connection | None = None

    def wait(self, seconds: float) -> None:
        """Return when it rang, or after `seconds`. Raises what SQLAlchemy raises when Postgres is away."""
        try:
            if self._conn is None:
                self._conn = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                deliveries.listen(self._conn)
                return  # what was said before it listened must be looked for
            deliveries.heard(self._conn, seconds)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.invalidate()  # a connection that listens must not be lent to anybody else
            conn.close()


class Relay:
    """Claims and publishes. One thread turns it; a few others wait for the broker's confirms.

    Keeps to `max_leased` deliveries, or their messages would outlive their leases in the queue; relays that claim at the same
    moment may exceed it by what each of them claims.
    """

    def __init__(self, engine: Engine, publisher: PublisherThread, *, lease: float, max_leased: int) -> None:
        """`lease` in seconds."""
        self._engine = engine
        self._publisher = publisher
        self._lease = timedelta(seconds=lease)
        self._max_leased = max_leased
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="publish")
        self._publishing: set[Future[bool]] = set()
        self._swept = self._claimed = float("-inf")
        self._wait = RECONNECT[0]

    def turn(self) -> float:
        """Claim once and hand on what was claimed; give the seconds until it is worth looking again."""
        self._sweep()
        pause = self._confirmed()
        if pause:
            return pause
        lease, now = uuid4(), datetime.now(UTC)
        with transaction(self._engine) as conn:
            room = self._room(conn)
            claims = deliveries.claim(conn, lease, now, now + self._lease, room) if room > 0 else []
            due = deliveries.next_due(conn) if len(claims) < room else None
        if claims:
            self._claimed = time.monotonic()
            self._publishing.add(self._pool.submit(self._publish, claims, lease, now + self._lease))
        if len(claims) == room:
            return 0.0 if claims else FULL
        return POLL if due is None else min(POLL, max(FULL, (due - now).total_seconds()))

    def _room(self, conn: Connection) -> int:
        """How many to claim. Under a backlog it waits for a good many to be settled: few at a time make batches of one."""
        room = self._max_leased - deliveries.leased(conn, self._max_leased)
        enough = min(CLAIM, self._max_leased // 8)
        return min(CLAIM, room) if room >= enough or time.monotonic() - self._claimed > MEAGRE else 0

    def close(self) -> None:
        """Hand back what the broker does not confirm any more. The publisher must be closed before, so that this is quick."""
        self._pool.shutdown()

    def _sweep(self) -> None:
        if time.monotonic() - self._swept < SWEEP:
            return
        with transaction(self._engine) as conn:
            expired = deliveries.expire_leases(conn, datetime.now(UTC), CLAIM)
        if expired:
            _log.warning("leases_expired", deliveries=expired)
        if expired < CLAIM:
            self._swept = time.monotonic()

    def _confirmed(self) -> float:
        """Look at what was published before; give the seconds to wait when the broker did not take it."""
        if len(self._publishing) >= IN_FLIGHT:
            wait(self._publishing, timeout=CONFIRM_SECONDS, return_when=FIRST_COMPLETED)
        done = {future for future in self._publishing if future.done()}
        self._publishing -= done
        if self._publisher.ready() is None and all(future.result() for future in done):
            self._wait = RECONNECT[0]
            return 0.0 if len(self._publishing) < IN_FLIGHT else FULL
        self._wait = min(self._wait * 2, RECONNECT[1])
        return self._wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the relays, guards nothing

    def _publish(self, claims: Sequence[Claim], lease: UUID, until: datetime) -> bool:
        """Publish all that was claimed and hand back what was not confirmed; whether there was nothing to hand back."""
        batches = list(batched(claims))
        messages = [envelope(lease, until.timestamp(), batch) for batch in batches]
        confirmed = self._publisher.publish_all(messages, CONFIRM_SECONDS)
        _log.debug("deliveries_claimed", deliveries=len(claims), messages=len(messages))
        lost = [claim for batch, taken in zip(batches, confirmed, strict=True) if not taken for claim in batch]
        if lost:
            with transaction(self._engine) as conn:
                deliveries.release(conn, [(claim.id, lease) for claim in lost], datetime.now(UTC))
            _log.warning("claims_handed_back", deliveries=len(lost))
        return not lost


def batched(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Cut `claims` into batches of one endpoint each, bounded in number and in bytes, in their order."""
    open_batches: defaultdict[int, list[Claim]] = defaultdict(list)
    sizes: defaultdict[int, int] = defaultdict(int)
    for claim in claims:
        batch = open_batches[claim.endpoint_id]
        if batch and (len(batch) == BATCH or sizes[claim.endpoint_id] + claim.size > BATCH_BYTES):
            yield open_batches.pop(claim.endpoint_id)
            sizes.pop(claim.endpoint_id)
        open_batches[claim.endpoint_id].append(claim)
        sizes[claim.endpoint_id] += claim.size
    yield from open_batches.values()


def run(settings: Settings) -> int:
    """Run one relay until SIGTERM or SIGINT. Returns the exit status."""
    require(settings, "database_url", "amqp_url")
    logs.configure(settings.log, settings.log_level, "relay")
    hush_pika()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = make_engine(settings.database_url, pool_size=IN_FLIGHT + 3)
    publisher = PublisherThread(settings.amqp_url, "relay", topology=DELIVER_TOPOLOGY)
    relay = Relay(engine, publisher, lease=settings.lease, max_leased=settings.max_leased)
    rounds = Rounds(relay, Bell(engine), stop)
    checks = {"database": lambda: rounds.trouble, "broker": publisher.ready}
    server = health.serve(settings.metrics_host, settings.metrics_port, checks)
    _log.info("started", metrics_port=server.port)
    upkeep = Upkeep(settings, engine)
    try:
        rounds.run(server.beat)
    finally:
        upkeep.close()
        publisher.close()
        relay.close()
        server.close()
        engine.dispose()
    _log.info("stopped")
    return 0


class Rounds:
    """Turns the relay until the process is to stop, however often Postgres goes away."""

    def __init__(self, relay: Relay, bell: Bell, stop: threading.Event) -> None:
        self._relay = relay
        self._bell = bell
        self._stop = stop
        self.trouble: str | None = "not connected yet"

    def run(self, beat: Callable[[], None]) -> None:
        """Return when the process is to stop."""
        pause = RECONNECT[0]
        while not self._stop.is_set():
            beat()
            try:
                self._bell.wait(self._relay.turn())
            except Exception as error:
                if not passes(error):
                    raise
                self._lost(error, pause)
                pause = min(pause * 2, RECONNECT[1])
            else:
                self.trouble, pause = None, RECONNECT[0]
        self._bell.close()

    def _lost(self, error: Exception, pause: float) -> None:
        self.trouble = f"Postgres: {type(error).__name__}"
        _log.warning("database_lost", error=str(error), again_in=round(pause, 1))
        self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the relays, guards nothing
