"""The relay: claims the deliveries that are due, endpoint by endpoint, and hands them to the actors in batches.

A batch holds deliveries of many endpoints: a message costs as much as ten deliveries, and when events for many endpoints arrive
evenly, a message for each endpoint would cost more than the deliveries. For the same reason the pause between rounds grows with
the number of deliveries in the last one: under load each round finds more, and without load no delivery waits.

Postgres wakes the relay when deliveries are planned, and so does the clock. Any number of relays may run. If a relay dies, its
claimed deliveries are claimed again when the lease ends; deliveries that it cannot publish it hands back.
"""

import random
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog

from ops.runtime.db import Connection, Engine, alone, passes, transaction
from ops.runtime.driver.db_distance import round_trip
from ops.settings import Settings
from ops.telemetry.tracing import delivery_spans
from ops.telemetry.tracing.switch import active, within
from pipeline.claim import Lease, Outlook, Round, claim_from, look
from pipeline.store.deliveries import claims, deliveries, notify
from schemas.delivery import Claim
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY, envelope, hush_pika
from workers.amqp.publisher_thread import PublisherThread
from workers.process import Process
from workers.relay.maintenance import Maintenance
from workers.relay.repairs import FAR, Repairs
from workers.relay.schedule import CheckSchedule
from workers.rounds import RECONNECT, Rounds

CLAIM: Final = 500  # deliveries in one claim
EACH_FAR: Final = 0.02  # seconds that Postgres is away, for each of which a claim takes as many again
MOST_TIMES: Final = 4
BATCH: Final = 100  # deliveries in one message
BATCH_BYTES: Final = 4 * 1024 * 1024  # of their bodies
PAGE: Final = 5000  # endpoints in one page of a survey, which takes a tenth of a second
IN_FLIGHT: Final = 4  # claims that await the broker's confirms
CONFIRM_SECONDS: Final = 5.0
ROUND: Final = 0.01  # seconds from the start of a round to the next, at least, when it found many deliveries
QUICK: Final = 0.002  # the same when it found none
EACH: Final = 0.001  # added to `QUICK` for each delivery that it found, up to `ROUND`
FULL: Final = 0.01  # seconds until the next check when nothing more can be published
QUIET: Final = 2.0  # seconds without a notification, after which Postgres is asked whether it is there
SWITCH_INTERVAL: Final = 0.0005  # seconds one thread may keep the others waiting: the default of 5 ms is longer than a round

_log = structlog.get_logger()


class DueNotifications:
    """Postgres notifications about due deliveries. While Postgres is away the relay depends on the clock alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._conn: Connection | None = None

    def wait(self, seconds: float) -> set[int]:
        """Wait up to `seconds`; give the endpoints that were notified. Raises SQLAlchemy's errors when Postgres is away."""
        try:
            if self._conn is None:
                self._conn = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                notify.listen(self._conn)
                return {notify.ANY}  # notifications from before it listened are lost: survey all endpoints
            ends = time.monotonic() + seconds
            while (left := max(0.0, ends - time.monotonic())) > QUIET:
                if found := notify.received(self._conn, QUIET):
                    return found
                notify.listen(self._conn)  # raises if Postgres is cut off, and as quiet as one that has nothing to say
            return notify.received(self._conn, left)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening."""
        if self._conn is not None:
            conn, self._conn = self._conn, None
            conn.invalidate()  # a listening connection must not return to the pool
            conn.close()


class Relay:
    """Claims and publishes. One thread calls `turn`; a few others wait for the broker's confirms.

    Leases at most `max_leased` deliveries at once, or their messages would outlive the leases in the queue; but a few of each
    endpoint may always be leased, and relays that claim at the same moment may exceed the limit by one claim each.
    """

    def __init__(
        self, engine: Engine, publisher: PublisherThread, *, lease: float, max_leased: int, quick: Engine | None = None
    ) -> None:
        """`lease` in seconds; `quick` is the engine for claims, which are short and many."""
        self._engine = engine
        self._quick = quick or engine
        self._publisher = publisher
        self._lease = timedelta(seconds=lease)
        self._max_leased = max_leased
        self._pool = ThreadPoolExecutor(IN_FLIGHT + 1, thread_name_prefix="publish")
        self._publishing: set[Future[bool]] = set()
        self._schedule = CheckSchedule(round_trip)
        self._repairs = Repairs(engine)
        self._repairing: Future[None] | None = None
        self._doubtful: UUID | None = None  # the lease of a claim of which it is unknown whether it was committed
        self._wait = RECONNECT[0]
        self.found = 0  # deliveries claimed in the last round

    def turn(self, notified: Collection[int] = ()) -> float:
        """Claim once and publish the claims; give the seconds until the next round, unless a notification comes first.

        `notified` are the endpoints that were notified.
        """
        self.found = 0
        self._release_doubtful()
        self._repair()
        self._schedule.notified(notified, datetime.now(UTC))
        pause = self._confirmed()
        if pause:
            return pause
        now = datetime.now(UTC)
        if self._schedule.wants_survey(now):
            self._survey(now)
        endpoints = self._schedule.wanted(now)
        if endpoints:
            lease = Lease(uuid4(), now, now + self._lease)
            self._doubtful = lease.id
            self._claim(endpoints, lease)
            self._doubtful = None
        return self._schedule.pause(datetime.now(UTC))

    def _release_doubtful(self) -> None:
        """Make due at once what a claim took before its connection was lost; it would be left to the end of its lease."""
        if self._doubtful is None:
            return
        now = datetime.now(UTC)
        with transaction(self._engine) as conn:
            released = claims.release_lease(conn, self._doubtful, now)
        self._doubtful = None
        if released:
            _log.warning("doubtful_claims_released", deliveries=len(released))
            self._schedule.notified(set(released), now)

    def _repair(self) -> None:
        """Run the repairs that are due; aside, if Postgres is far, as they take many round trips. Raises what they raised."""
        if self._repairing is None and round_trip() < FAR:
            self._repairs.turn()
        elif self._repairing is None:
            self._repairing = self._pool.submit(self._repairs.turn)
        elif self._repairing.done():
            repairing, self._repairing = self._repairing, None
            repairing.result()

    def _survey(self, now: datetime) -> None:
        began = time.monotonic()
        with alone(self._engine) as conn:
            page = claims.survey_page(conn, self._schedule.surveyed_through, PAGE)
        self._schedule.surveyed(page, now, max(0.0, time.monotonic() - began - round_trip()))

    def _claim(self, endpoints: Sequence[int], lease: Lease) -> None:
        """Claim in two statements, each its own transaction, unless a breaker's probe or rate-limit tokens need a lock."""
        claimed: Round | None = None
        with alone(self._quick) as conn:
            outlook = look(conn, endpoints, lease.now, self._schedule.window, self._max_leased)
            if not outlook.guarded:
                claimed = self._claimed(conn, outlook, lease)
        if claimed is None:
            with transaction(self._engine) as conn:
                claimed = self._claimed(conn, outlook, lease)
        self._take(claimed, endpoints, lease)

    def _claimed(self, conn: Connection, outlook: Outlook, lease: Lease) -> Round:
        chance = random.random()  # noqa: S311 - divides odd numbers, guards nothing
        window, most = self._schedule.window, self._max_leased
        limit = CLAIM + int(CLAIM * min(MOST_TIMES, round_trip() / EACH_FAR))
        return claim_from(conn, outlook, lease, window, limit=limit, max_leased=most, random=chance)

    def _take(self, found: Round, endpoints: Sequence[int], lease: Lease) -> None:
        self.found = len(found.claims)
        if found.claims:
            self._publishing.add(self._pool.submit(self._publish, found.claims, lease.id, lease.until))
        self._schedule.looked(found.looked, set(endpoints) - found.looked.keys(), lease.now)

    def close(self) -> None:
        """Hand back unconfirmed claims. Close the publisher first, so that this is quick."""
        self._pool.shutdown()

    def _confirmed(self) -> float:
        """Check the publishing of earlier claims; give the seconds to pause if the broker did not take them or is busy.

        Raises what the publishing of one raised; rather an error that would repeat than a transient one.
        """
        if len(self._publishing) >= IN_FLIGHT:
            wait(self._publishing, timeout=CONFIRM_SECONDS, return_when=FIRST_COMPLETED)
        done = {future for future in self._publishing if future.done()}
        self._publishing -= done
        failures = [error for future in done if (error := future.exception()) is not None]
        if failures:
            raise next((error for error in failures if not passes(error)), failures[0])
        if self._publisher.ready() is None and all(future.result() for future in done):
            self._wait = RECONNECT[0]
            return 0.0 if len(self._publishing) < IN_FLIGHT else FULL
        self._wait = min(self._wait * 2, RECONNECT[1])
        return self._wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads the relays, guards nothing

    def _publish(self, got: Sequence[Claim], lease: UUID, until: datetime) -> bool:
        """Publish the claims and hand back the unconfirmed ones; give whether all were confirmed.

        If it raises, the claims are left to the end of their lease.
        """
        try:
            return self._all_confirmed(got, lease, until)
        except Exception as error:
            _log.warning("claims_left_to_their_lease", deliveries=len(got), error=str(error))
            raise

    def _all_confirmed(self, got: Sequence[Claim], lease: UUID, until: datetime) -> bool:
        spans = active()
        span = None if spans is None else delivery_spans.claiming(spans)
        batches = list(batched(got))
        messages = [envelope(lease, until.timestamp(), batch, span) for batch in batches]
        confirmed = self._publisher.publish_all(messages, CONFIRM_SECONDS)
        with within(span):
            _log.debug("deliveries_claimed", deliveries=len(got), messages=len(messages))
        lost = [each for batch, taken in zip(batches, confirmed, strict=True) if not taken for each in batch]
        if spans is not None and span is not None:
            delivery_spans.claimed(spans, span, len(got), until - self._lease, lost=len(lost))
        if lost:
            with transaction(self._engine) as conn:
                deliveries.release(conn, [(each.id, lease) for each in lost], datetime.now(UTC))
            _log.warning("claims_handed_back", deliveries=len(lost))
        return not lost


def spacing(found: int) -> float:
    """Seconds from the start of a round that found `found` deliveries to the next, at least."""
    return min(ROUND, QUICK + EACH * found)


def batched(got: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Split the claims into batches, bounded in number and in bytes, in order."""
    batch: list[Claim] = []
    size = 0
    for each in got:
        if batch and (len(batch) == BATCH or size + each.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch


def run(settings: Settings) -> int:
    """Run one relay until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "relay", "database_url", "amqp_url", switch_interval=SWITCH_INTERVAL) as process:
        hush_pika()
        engine = process.engine(IN_FLIGHT + 2)
        publisher = PublisherThread(settings.amqp_url, "relay", topology=DELIVER_TOPOLOGY)
        quick = process.engine(1, keep_plans=True)
        relay = Relay(engine, publisher, lease=settings.lease, max_leased=settings.max_leased, quick=quick)
        work = process.closing(RelayRounds(relay, DueNotifications(process.engine(1, session=True))))
        rounds = Rounds(process.stop, work.turn, work.lost)
        beat = process.serve({"database": process.database(lambda: rounds.trouble), "broker": publisher.trouble})
        process.closing(relay)  # after the publisher, so that it is quick
        process.closing(publisher)
        process.closing(Maintenance(settings, engine))
        rounds.run(beat)
    return process.status


class RelayRounds:
    """Runs the relay's rounds, each with the endpoints that were notified while the one before was resting."""

    def __init__(self, relay: Relay, notifications: DueNotifications) -> None:
        self._relay = relay
        self._notifications = notifications
        self._notified: set[int] = set()

    def turn(self) -> float:
        """Run one round and wait for what is to do in the next. Raises SQLAlchemy's errors when Postgres is away."""
        began = time.monotonic()
        self._notified = self._notifications.wait(self._relay.turn(self._notified))
        if (rest := began + spacing(self._relay.found) - time.monotonic()) > 0:
            time.sleep(rest)
            self._notified |= self._notifications.wait(0.0)
        return 0.0

    def lost(self) -> None:
        """Survey all endpoints in the next round, because notifications may have been lost."""
        self._notified = {notify.ANY}

    def close(self) -> None:
        """Stop listening for notifications."""
        self._notifications.close()
