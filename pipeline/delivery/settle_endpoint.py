"""Step 8, settle, for endpoints: a settlement's effect on their health, written in its transaction, one row for each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from pipeline.delivery.breaker import BUSY, THROTTLES, BreakerPolicy, after, forgotten, is_hopeless
from pipeline.store.deliveries import deliveries, endpoint_health
from pipeline.store.deliveries.endpoint_health import EventKind
from pipeline.store.round_trip import Query, together
from schemas.delivery import GONE, OURS, Settlement, Tried, summary
from schemas.endpoint_health import Health, Seen

STATUS: Final = "status"  # the error of a receipt with an HTTP status other than 2xx


@dataclass(frozen=True, slots=True)
class HealthChange:
    """An endpoint's health before and after a settlement."""

    endpoint_id: int
    before: Health
    after: Health

    @property
    def event(self) -> EventKind | None:
        """The operator event for the change, if any: failed probes are not reported."""
        if self.before.breaker == "closed" and self.after.breaker == "open":
            return "breaker_opened"
        return "breaker_closed" if self.before.breaker != "closed" and self.after.breaker == "closed" else None


def seen(settled: Iterable[Tried]) -> dict[int, Seen]:
    """The results for each endpoint, without failures of our own, which do not count for its health."""
    found: dict[int, list[Settlement]] = {}
    for each in settled:
        if each.settlement.receipt.error not in OURS:
            found.setdefault(each.delivery.endpoint_id, []).append(each.settlement)
    return {endpoint_id: _seen(settlements) for endpoint_id, settlements in found.items()}


def health_queries(tried: Sequence[Tried]) -> list[Query]:
    """Queries whose last one reads, and locks, the health that `reckon` needs to settle these or fewer."""
    news = seen(tried)
    failed = [id_ for id_, each in news.items() if each.failures]
    return endpoint_health.lock_queries(failed, news.keys() - failed)


def reckon(
    conn: Connection,
    settled: Sequence[Tried],
    healths: Mapping[int, Health],
    now: datetime,
    policy: BreakerPolicy,
    random: float,
) -> list[HealthChange]:
    """Writes the endpoints' health after `settled`, and operator events for breaker changes; returns the changes.

    `healths` are the locked ones. An endpoint for which a success changes nothing is not among them, and not written: that is
    nearly every endpoint, nearly always.
    """
    news = seen(settled)
    changes = [
        HealthChange(id_, before, after(before, news[id_], now, policy, random))
        for id_, before in healths.items()
        if id_ in news
    ]
    changes = [each for each in changes if each.before != each.after]
    if changes:
        events = [(each.event, each.endpoint_id, _told(each)) for each in changes if each.event]
        written = endpoint_health.write_queries({each.endpoint_id: each.after for each in changes}, now)
        together(conn, [*written, *endpoint_health.note_queries(events, now)])
    return changes


def disable(
    conn: Connection, settled: Sequence[Tried], changes: Sequence[HealthChange], now: datetime, policy: BreakerPolicy
) -> Mapping[int, str]:
    """Disables the endpoints that asked for it, and those that are hopeless; returns the reason for each."""
    at = f"{now:%Y-%m-%d %H:%M:%SZ}"
    reasons = {each.endpoint_id: _hopeless(each.after) for each in changes if is_hopeless(each.after, now, policy)}
    reasons |= {each.delivery.endpoint_id: f"{why} at {at}" for each in settled if (why := disabling(each.settlement))}
    disabled = {id_: why for id_, why in sorted(reasons.items()) if deliveries.disable(conn, [id_], why)}
    endpoint_health.note(conn, [("endpoint_disabled", endpoint_id, why) for endpoint_id, why in disabled.items()], now)
    return disabled


def begin_anew(conn: Connection, endpoint_id: int, now: datetime, why: str) -> None:
    """Resets the health of an endpoint that was enabled again, except for a forced breaker, and adds an operator event."""
    before = endpoint_health.lock(conn, [endpoint_id])[endpoint_id]
    endpoint_health.write(conn, {endpoint_id: forgotten(before)}, now)
    endpoint_health.enabled(conn, endpoint_id, now)
    endpoint_health.note(conn, [("endpoint_enabled", endpoint_id, why)], now)


def _seen(settlements: Sequence[Settlement]) -> Seen:
    failed = [each.receipt for each in settlements if each.receipt.error is not None]
    refused = [each for each in failed if each.error == STATUS and each.status in THROTTLES]
    return Seen(
        successes=len(settlements) - len(failed),
        failures=len(failed),
        busy=sum(each.status == BUSY for each in refused),
        throttled=bool(refused),
        hint=max((each.retry_after for each in refused if each.retry_after is not None), default=None),
        error=summary(failed[-1]) if failed else None,
    )


def _told(change: HealthChange) -> str:
    if change.event == "breaker_closed":
        return "a probe was delivered"
    return f"{change.after.last_error}; probed from {change.after.probe_at:%Y-%m-%d %H:%M:%SZ} on"


def _hopeless(health_: Health) -> str:
    return f"nothing but failures since {health_.failing_since:%Y-%m-%d %H:%M:%SZ}: {health_.last_error}"


def disabling(settlement: Settlement) -> str | None:
    """Why the response disables its endpoint, even if it accepted the event; None when it does not ask for that."""
    if settlement.reason == "gone":
        return f"it answered {GONE} Gone"
    return "it answered webhook-delivery: disable" if settlement.receipt.wish == "disable" else None
