"""Counts and logs what was settled, after COMMIT."""

from collections.abc import Iterable

import structlog

from ops import metrics
from pipeline.deliver import EXPIRED, OURS
from pipeline.endpoints import Change
from pipeline.settle import Settled
from pipeline.store.aside import Aside
from schemas.delivery import Delivery, Settlement, Tried
from workers.verdicts import GivenUp, TooOld

_log = structlog.get_logger()


def tally(settled: Settled, expired: Iterable[TooOld], given_up: Iterable[GivenUp]) -> None:
    """Count tries, ends, breakers that moved and endpoints that were disabled."""
    for gone in given_up:
        metrics.observe_cancelled(gone.transport, 1)
        _log.info("delivery_given_up", delivery=gone.held[0], reason=gone.why)
    for tried in settled.tried:
        _tally_try(tried)
    for each in expired:
        _tally_burial(each.delivery, EXPIRED, each.transport)
    for change in settled.changes:
        _tally_change(change)
    for endpoint_id, why in settled.disabled.items():
        metrics.ENDPOINTS_DISABLED.inc()
        _log.error("endpoint_disabled", endpoint=endpoint_id, reason=why)


def tally_aside(aside: Aside) -> None:
    """Count and log what was paused, or given up with its endpoint."""
    for (tenant, endpoint, transport), count in aside.discarded.items():
        metrics.observe_cancelled(transport, count)
        _log.warning("deliveries_given_up", tenant=tenant, endpoint=endpoint, deliveries=count)
    if aside.paused:
        _log.info("deliveries_paused", deliveries=aside.paused)


def _tally_try(tried: Tried) -> None:
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
        _tally_burial(delivery, settlement.reason or "exhausted", tried.transport)
    _log.debug("delivery_settled", delivery=delivery.id, outcome=settlement.outcome, attempt=settlement.attempt)


def _tally_burial(delivery: Delivery, reason: str, transport: str) -> None:
    metrics.observe_buried("deliver", reason, transport)
    _log.warning("delivery_buried", delivery=delivery.id, endpoint=delivery.endpoint_id, reason=reason)


def _tally_change(change: Change) -> None:
    before, after = change.before, change.after
    if before.breaker == after.breaker:
        return
    metrics.BREAKER_TRANSITIONS.labels(after.breaker).inc()
    _log.warning(
        "breaker_moved",
        endpoint=change.endpoint_id,
        before=before.breaker,
        after=after.breaker,
        trips=after.trips,
        probe_at=after.probe_at and after.probe_at.isoformat(),
        error=after.last_error,
    )


def _fault(settlement: Settlement) -> str:
    if settlement.outcome == "delivered":
        return "none"
    return "platform" if settlement.receipt.error in OURS else "destination"
