"""Beside room 8: what a settlement means for the endpoints, written in its transaction, one row for each endpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from pipeline.delivery.breaker import BUSY, THROTTLES, BreakerPolicy, after, forgotten, is_clean, is_hopeless
from pipeline.store.deliveries import deliveries, endpoint_health
from pipeline.store.deliveries.endpoint_health import EventKind
from schemas.delivery import GONE, OURS, Settlement, Tried, summary
from schemas.endpoint_health import Health, Seen

STATUS: Final = "status"  # the error of a receipt whose status is an answer of HTTP


@dataclass(frozen=True, slots=True)
class HealthChange:
    """How an endpoint fared before and after a settlement."""

    endpoint_id: int
    before: Health
    after: Health

    @property
    def event(self) -> EventKind | None:
        """What an operator is told, if anything: not of every probe that fails."""
        if self.before.breaker == "closed" and self.after.breaker == "open":
            return "breaker_opened"
        return "breaker_closed" if self.before.breaker != "closed" and self.after.breaker == "closed" else None


def seen(settled: Iterable[Tried]) -> dict[int, Seen]:
    """What was seen of each endpoint. What failed by our own fault says nothing about it."""
    found: dict[int, list[Settlement]] = {}
    for each in settled:
        if each.settlement.receipt.error not in OURS:
            found.setdefault(each.delivery.endpoint_id, []).append(each.settlement)
    return {endpoint_id: _seen(settlements) for endpoint_id, settlements in found.items()}


def reckon(
    conn: Connection, settled: Sequence[Tried], now: datetime, policy: BreakerPolicy, random: float
) -> list[HealthChange]:
    """Writes how the endpoints fare after what was settled, and what operators should hear of; returns what changed.

    An endpoint whose success changes nothing is not written: nearly all are such, nearly always. One that has done nothing
    but fail for as long as the policy allows is disabled.
    """
    news = seen(settled)
    unclean = {id_ for id_, health_ in endpoint_health.read(conn, news).items() if not is_clean(health_)}
    concerned = [id_ for id_, each in news.items() if each.failures or id_ in unclean]
    changes = [
        HealthChange(id_, before, after(before, news[id_], now, policy, random))
        for id_, before in endpoint_health.lock(conn, concerned).items()
    ]
    changes = [each for each in changes if each.before != each.after]
    endpoint_health.write(conn, {each.endpoint_id: each.after for each in changes}, now)
    endpoint_health.note(conn, [(each.event, each.endpoint_id, _told(each)) for each in changes if each.event], now)
    return changes


def disable(
    conn: Connection, settled: Sequence[Tried], changes: Sequence[HealthChange], now: datetime, policy: BreakerPolicy
) -> Mapping[int, str]:
    """Disables the endpoints that asked for it, and those that are hopeless; returns them with the reason."""
    at = f"{now:%Y-%m-%d %H:%M:%SZ}"
    reasons = {each.endpoint_id: _hopeless(each.after) for each in changes if is_hopeless(each.after, now, policy)}
    reasons |= {each.delivery.endpoint_id: f"{why} at {at}" for each in settled if (why := disabling(each.settlement))}
    disabled = {id_: why for id_, why in sorted(reasons.items()) if deliveries.disable(conn, [id_], why)}
    endpoint_health.note(conn, [("endpoint_disabled", endpoint_id, why) for endpoint_id, why in disabled.items()], now)
    return disabled


def begin_anew(conn: Connection, endpoint_id: int, now: datetime, why: str) -> None:
    """Forgets how an endpoint that was enabled again fared before, unless an operator forced its breaker, and says so."""
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
    """What the answer said for its endpoint to be disabled, also one that took the event; None when it said no such thing."""
    if settlement.reason == "gone":
        return f"it answered {GONE} Gone"
    return "it answered webhook-delivery: disable" if settlement.receipt.wish == "disable" else None
