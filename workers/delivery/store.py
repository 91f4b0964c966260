"""The deliver process's reads from Postgres and writes to it, for many deliveries at once."""

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import structlog

from ops.errors import one_line
from ops.runtime.db import Connection, Engine, alone, lacks_partition, passes, persist, transaction
from ops.telemetry import metrics
from ops.telemetry.pulse import Recent
from pipeline.delivery.allowance import opens_at
from pipeline.delivery.breaker import DEFAULT, BreakerPolicy
from pipeline.delivery.settle_endpoint import HealthChange
from pipeline.settle import Settled, expire, settle
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import attempt_partitions, claims, deliveries
from pipeline.store.deliveries.inactive_endpoints import Aside, set_held_aside
from schemas.delivery import Delivery, Tried
from workers.delivery.not_sent import Found, GivenUp, Missing, TooOld, Untried, Verdict
from workers.delivery.report import tally, tally_aside

LOAD_SECONDS: Final = 10.0  # for which an unreachable database is retried; then the lease ends and returns the delivery
HELD_OFF: Final = timedelta(seconds=5)  # for which deliveries in hand are handed back; no relay claims others meanwhile
NOTHING: Final = Settled((), (), {})

_log = structlog.get_logger()
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Written:
    settled: Settled
    expired: Sequence[TooOld]
    given_up: Sequence[GivenUp]
    aside: Aside


class DeliveryStore:
    """Loads and settles. Each call is one transaction; any thread may make it."""

    def __init__(self, engine: Engine, lease: float, policy: BreakerPolicy = DEFAULT, *, quick: Engine | None = None) -> None:
        """`lease` in seconds: settling is not retried for longer. `quick` is the engine for loads, which are short and many."""
        self.engine = engine
        self._quick = quick or engine
        self.lease = lease
        self._policy = policy
        self._held_off: dict[int, datetime] = {}
        self.trouble = Recent()  # why Postgres cannot be reached at the moment

    def load(self, held: Sequence[deliveries.Held]) -> list[Found]:
        """Give for each the delivery, or what is missing. Raises when the database stays away for ten seconds."""
        loaded = self._until_done(LOAD_SECONDS, partial(deliveries.load_leased, held=held), alone, self._quick)
        by_id = {each.id: each for each in loaded.deliveries}  # a delivery has one lease, even if `held` names two
        return [_found(by_id.get(id_), id_, lease, loaded.erased) for id_, lease in held]

    def extend(self, held: Sequence[deliveries.Held]) -> set[deliveries.Held]:
        """Renew the leases that are still valid, for their whole time from now on; give those."""
        with transaction(self.engine) as conn:
            claims.forgettable(conn)
            return claims.extend(conn, held, datetime.now(UTC) + timedelta(seconds=self.lease))

    def is_held_off(self, endpoint_id: int) -> bool:
        """Whether to hand back the endpoint's deliveries in hand: it asked us to wait, or its breaker has opened.

        Holds for a few seconds only: deliveries claimed after that may be sent.
        """
        until = self._held_off.get(endpoint_id)
        return until is not None and datetime.now(UTC) < until

    def settle(self, verdicts: Sequence[Verdict]) -> list[None]:
        """Return when all verdicts are durable. One that could not be written is left to its lease: the delivery is sent again.

        A verdict that Postgres refuses is isolated by halving, and does not keep the others from being written.
        """
        try:
            written = self._written(verdicts)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is lost: the leases end
            _log.warning("settlement_failed", deliveries=len(verdicts), error=one_line(error))
            if len(verdicts) > 1 and not passes(error):
                middle = len(verdicts) // 2
                self.settle(verdicts[:middle])
                self.settle(verdicts[middle:])
        else:
            self._hold_off(written.settled.changes)
            tally(written.settled, written.expired, written.given_up)
            tally_aside(written.aside)
        return [None] * len(verdicts)

    def abandon(self, held: deliveries.Held, error: Exception) -> None:
        """Record an internal failure as a dead letter. The lease ends and the delivery is retried until an operator decides."""
        if passes(error):
            return
        name, detail = type(error).__name__, one_line(error)
        try:
            fresh = self._until_done(
                LOAD_SECONDS, lambda conn: dead_letters.note_failed(conn, held[0], name, detail, datetime.now(UTC))
            )
        except Exception as failure:  # noqa: BLE001 - the next attempt records it
            _log.warning("failure_not_noted", delivery=held[0], error=one_line(failure))
        else:
            if fresh:
                metrics.observe_buried("actor", "internal")

    def _hold_off(self, changes: Sequence[HealthChange]) -> None:
        if not changes:
            return
        now = datetime.now(UTC)
        for endpoint_id in [each for each, until in list(self._held_off.items()) if until <= now]:
            self._held_off.pop(endpoint_id, None)
        for change in changes:
            until = opens_at(change.after, now)
            if until is None:
                self._held_off.pop(change.endpoint_id, None)
            else:
                self._held_off[change.endpoint_id] = min(until, now + HELD_OFF)

    def _written(self, verdicts: Sequence[Verdict]) -> _Written:
        """Write; if a partition of the attempt log is missing, though they are made ahead, make it and write again."""
        try:
            return self._until_done(self.lease, lambda conn: self._write(conn, verdicts))
        except Exception as error:
            if not lacks_partition(error):
                raise
        days = [each.settlement.receipt.started_at for each in verdicts if isinstance(each, Tried)]
        made = self._until_done(LOAD_SECONDS, lambda conn: attempt_partitions.ensure_for(conn, days))
        _log.warning("partitions_missing", made=made)
        return self._until_done(self.lease, lambda conn: self._write(conn, verdicts))

    def _write(self, conn: Connection, verdicts: Sequence[Verdict]) -> _Written:
        now = datetime.now(UTC)
        tried = [verdict for verdict in verdicts if isinstance(verdict, Tried)]
        settled = settle(conn, tried, now, self._policy, random.random()) if tried else NOTHING  # noqa: S311 - spreads probes
        too_old = {verdict.delivery.id: verdict for verdict in verdicts if isinstance(verdict, TooOld)}
        expired = expire(conn, [verdict.delivery for verdict in too_old.values()], now)
        aside = _move(conn, [verdict for verdict in verdicts if isinstance(verdict, Untried)], now)
        given_up = [each for each in verdicts if isinstance(each, GivenUp) and _end(conn, each, now)]
        return _Written(settled, [too_old[delivery.id] for delivery in expired], given_up, aside)

    def _until_done(
        self,
        seconds: float,
        work: Callable[[Connection], _Result],
        within: Callable[[Engine], AbstractContextManager[Connection]] = transaction,
        engine: Engine | None = None,
    ) -> _Result:
        result = persist(engine or self.engine, seconds, work, lost=self._in_trouble, within=within)
        self.trouble.clear()
        return result

    def _in_trouble(self, error: BaseException | None, tries: int) -> None:
        self.trouble.note(f"Postgres: {type(error).__name__}")
        _log.warning("database_lost", tries=tries, error=one_line(error))


def _found(delivery: Delivery | None, id_: int, lease: UUID, erased: Collection[int]) -> Found:
    if delivery is not None and delivery.lease == lease:
        return delivery
    return Missing.CONTENT if id_ in erased else Missing.LEASE


def _move(conn: Connection, untried: Sequence[Untried], now: datetime) -> Aside:
    pending = [each for each in untried if each.into == "pending"]
    for wait in {each.wait for each in pending}:
        deliveries.release(conn, [each.held for each in pending if each.wait == wait], now + timedelta(seconds=wait))
    aside = [each for each in untried if each.into == "aside"]
    later = now + timedelta(seconds=max((each.wait for each in aside), default=0.0))
    return set_held_aside(conn, [each.held for each in aside], later, now)


def _end(conn: Connection, given_up: GivenUp, now: datetime) -> bool:
    """Discard the delivery; give whether its lease was still valid."""
    return bool(deliveries.end(conn, [given_up.held], "discarded", now, given_up.why))
