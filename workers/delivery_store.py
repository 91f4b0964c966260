"""What the deliver process reads from Postgres and writes to it, for many deliveries at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ops import metrics
from ops.db import lacks_partition, passes, transaction
from pipeline.deliver import OURS
from pipeline.settle import Tried, settle
from pipeline.store import deliveries, partitions
from schemas.delivery import Delivery, Settlement

LOAD_SECONDS: Final = 10.0  # for which an absent database is asked again; then the lease brings the delivery back

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Missing(Enum):
    """Why there is nothing to send."""

    LEASE = "the lease is gone"
    CONTENT = "the content was erased"


@dataclass(frozen=True, slots=True)
class Untried:
    """A delivery that was not tried, and what becomes of it: due again at once, kept, or given up."""

    held: deliveries.Held
    into: deliveries.State
    why: str | None = None


Verdict = Tried | Untried
Found = Delivery | Missing


class DeliveryStore:
    """Loads and settles. Each call is one transaction; any thread may make it."""

    def __init__(self, engine: Engine, lease: float) -> None:
        """`lease` in seconds: for longer there is no use in trying to settle."""
        self._engine = engine
        self._lease = lease
        self.trouble: str | None = None  # why Postgres cannot be reached just now

    def load(self, held: Sequence[deliveries.Held]) -> list[Found]:
        """Give for each the delivery, or what is missing. Raises when the database stays away for ten seconds."""
        loaded = self._until_done(LOAD_SECONDS, lambda conn: deliveries.load_leased(conn, held))
        by_id = {(each.id, each.lease): each for each in loaded.deliveries}
        return [by_id.get(key) or (Missing.CONTENT if key[0] in loaded.erased else Missing.LEASE) for key in held]

    def settle(self, verdicts: Sequence[Verdict]) -> list[None]:
        """Return when all is durable, or left to the lease: then it is sent again, under the same id.

        A verdict that Postgres refuses is found by halving, and does not keep the others from being written.
        """
        try:
            settled = self._written(verdicts)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is lost: the leases end
            _log.warning("settlement_failed", deliveries=len(verdicts), error=_one_line(error))
            if len(verdicts) > 1 and not passes(error):
                middle = len(verdicts) // 2
                self.settle(verdicts[:middle])
                self.settle(verdicts[middle:])
        else:
            for each in settled:
                _observe(each)
        return [None] * len(verdicts)

    def _written(self, verdicts: Sequence[Verdict]) -> list[Tried]:
        """Partitions of the attempt log are made ahead; should one be missing all the same, no settlement waits for it."""
        try:
            return self._until_done(self._lease, lambda conn: _write(conn, verdicts))
        except Exception as error:
            if not lacks_partition(error):
                raise
        days = [each.settlement.receipt.started_at for each in verdicts if isinstance(each, Tried)]
        made = self._until_done(LOAD_SECONDS, lambda conn: partitions.ensure_for(conn, days))
        _log.warning("partitions_missing", made=made)
        return self._until_done(self._lease, lambda conn: _write(conn, verdicts))

    def _until_done(self, seconds: float, work: Callable[[Connection], _Result]) -> _Result:
        for attempt in Retrying(
            retry=retry_if_exception(passes),
            stop=stop_after_delay(seconds),
            wait=wait_exponential_jitter(multiplier=0.05, max=2.0, jitter=0.2),
            before_sleep=self._in_trouble,
            reraise=True,
        ):
            with attempt, transaction(self._engine) as conn:
                result = work(conn)
        self.trouble = None
        return result

    def _in_trouble(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.trouble = f"Postgres: {type(error).__name__}"
        _log.warning("database_lost", tries=state.attempt_number, error=_one_line(error))


def _write(conn: Connection, verdicts: Sequence[Verdict]) -> list[Tried]:
    now = datetime.now(UTC)
    tried = [verdict for verdict in verdicts if isinstance(verdict, Tried)]
    untried = [verdict for verdict in verdicts if isinstance(verdict, Untried)]
    settled = settle(conn, tried, now) if tried else []
    deliveries.release(conn, [each.held for each in untried if each.into == "pending"], now)
    deliveries.pause(conn, [each.held for each in untried if each.into == "paused"])
    for each in untried:
        if each.into == "discarded":
            deliveries.end(conn, [each.held], "discarded", now, each.why or "")
    return settled


def _observe(tried: Tried) -> None:
    delivery, settlement = tried.delivery, tried.settlement
    receipt = settlement.receipt
    waited = (receipt.started_at - delivery.created_at).total_seconds()
    metrics.observe_attempt(
        tried.transport,
        _fault(settlement),
        receipt.duration,
        first_delay=waited if settlement.attempt == 1 else None,
        reused=receipt.reused,
    )
    if settlement.outcome == "delivered":
        metrics.observe_delivered(tried.transport, settlement.attempt, waited + receipt.duration)
    elif settlement.outcome == "dead":
        metrics.observe_buried("deliver", settlement.reason or "exhausted", tried.transport)
        _log.warning("delivery_buried", delivery=delivery.id, endpoint=delivery.endpoint_id, reason=settlement.reason)
    _log.debug("delivery_settled", delivery=delivery.id, outcome=settlement.outcome, attempt=settlement.attempt)


def _fault(settlement: Settlement) -> str:
    if settlement.outcome == "delivered":
        return "none"
    return "platform" if settlement.receipt.error in OURS else "destination"


def _one_line(error: BaseException | None) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
