"""Counts and logs settled deliveries, after COMMIT."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import structlog

from ops.telemetry import metrics, table
from ops.telemetry.tracing import delivery_spans
from ops.telemetry.tracing.switch import active, within
from pipeline.delivery.settle_endpoint import HealthChange
from pipeline.settle import Settled
from pipeline.store.deliveries.inactive_endpoints import Aside
from schemas.delivery import EXPIRED, OURS, Delivery, Settlement, Tried
from workers.delivery.not_sent import GivenUp, TooOld

_log = structlog.get_logger()


def tally(settled: Settled, expired: Iterable[TooOld], given_up: Iterable[GivenUp]) -> None:
    """Count attempts, final outcomes, breakers that changed state and endpoints that were disabled."""
    for gone in given_up:
        metrics.observe_cancelled(gone.transport, 1)
        _log.info("delivery_given_up", delivery=gone.held[0], reason=gone.why)
    _tally_tries(settled.tried)
    for each in expired:
        _tally_burial(each.delivery, EXPIRED, each.transport)
    for change in settled.changes:
        _tally_change(change)
    for endpoint_id, why in settled.disabled.items():
        table.ENDPOINTS_DISABLED.inc()
        _log.error("endpoint_disabled", endpoint=endpoint_id, reason=why)


def tally_aside(aside: Aside) -> None:
    """Count and log deliveries that were paused, or discarded with their endpoint."""
    for (tenant, endpoint, transport), count in aside.discarded.items():
        metrics.observe_cancelled(transport, count)
        _log.warning("deliveries_given_up", tenant=tenant, endpoint=endpoint, deliveries=count)
    if aside.paused:
        _log.info("deliveries_paused", deliveries=aside.paused)


def _tally_tries(tried: Iterable[Tried]) -> None:
    """Count attempts with equal labels together: one by one, counting takes longer than writing them to Postgres."""
    alike: defaultdict[tuple[str, str], list[Tried]] = defaultdict(list)
    for each in tried:
        settlement = each.settlement
        alike[each.transport, _fault(settlement)].append(each)
        if settlement.outcome == "dead":
            _tally_burial(each.delivery, settlement.reason or "exhausted", each.transport)
        with within(each.delivery.trace):
            _log.debug("delivery_settled", delivery=each.delivery.id, outcome=settlement.outcome, attempt=settlement.attempt)
    for (transport, fault), group in alike.items():
        _tally_alike(transport, fault, group)


def _tally_alike(transport: str, fault: str, tried: Sequence[Tried]) -> None:
    numbers = [each.settlement.attempt for each in tried]
    receipts = [each.settlement.receipt for each in tried]
    waited = [
        (receipt.started_at - each.delivery.created_at).total_seconds() for receipt, each in zip(receipts, tried, strict=True)
    ]
    first = [seconds for seconds, number in zip(waited, numbers, strict=True) if number == 1]
    took = [receipt.duration for receipt in receipts]
    metrics.observe_attempts(transport, fault, took, first, [receipt.reused for receipt in receipts])
    if fault == "none":
        metrics.observe_all_delivered(transport, numbers, [sum(each) for each in zip(waited, took, strict=True)])
    for seconds, before, each in zip(took, waited, tried, strict=True):
        if each.delivery.trace is not None and each.delivery.trace.sampled:  # one of each group is enough for a dashboard
            metrics.exemplify_attempt(transport, fault, seconds, before + seconds, each.delivery.trace.trace_id)
            break


def _tally_burial(delivery: Delivery, reason: str, transport: str) -> None:
    metrics.observe_buried("deliver", reason, transport)
    spans = active()
    with within(None if spans is None else delivery_spans.buried(spans, delivery, reason)):
        _log.warning("delivery_buried", delivery=delivery.id, endpoint=delivery.endpoint_id, reason=reason)


def _tally_change(change: HealthChange) -> None:
    before, after = change.before, change.after
    if before.breaker == after.breaker:
        return
    table.BREAKER_TRANSITIONS.labels(after.breaker).inc()
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
