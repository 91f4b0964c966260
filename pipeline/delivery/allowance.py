"""How many deliveries of each endpoint may be claimed now: fair shares, lanes, rate limit, waits and breaker. Pure."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from schemas.allowance import Allowance, Standing
from schemas.endpoint_health import Health

ASSURED = 10  # deliveries that every endpoint may have leased, however many are leased by others


def wanted(standing: Standing, window: int, now: datetime) -> Allowance:
    """How many deliveries the endpoint alone could claim; at most `window` of it may be leased at once.

    The whole number is in `first`; `split` divides it. If less than a quarter of the window is free, the number is 0: claims
    of one or two deliveries would cost more than they bring.
    """
    dues = [due for due in standing.dues if due is not None]
    if not dues or min(dues) > now:
        return Allowance(look_at=min(dues, default=None))
    held_until = opens_at(standing.health, now)
    if held_until is not None:
        return Allowance(look_at=held_until)
    free = window - standing.leased
    if standing.health.breaker != "closed":
        return Allowance(1) if standing.leased == 0 and not standing.health.forced else Allowance()
    if free < math.ceil(window / 4):
        return Allowance()
    return _within_rate(free, standing, now)


def opens_at(health: Health, now: datetime) -> datetime | None:
    """The time before which nothing may be sent to the endpoint; None if that is unknown or past."""
    waits = [at for at in (health.not_before, health.probe_at) if at is not None and at > now]
    return max(waits, default=None)


def split(total: int, standing: Standing, now: datetime, random: float) -> Allowance:
    """Half for each lane that has due deliveries, an odd one by `random` in [0, 1): neither lane can starve the other.

    Half of what an endpoint takes is new deliveries, however many retries are overdue, and vice versa. If a lane does not use
    its half, the next claim, which follows at once, gives the rest to the other lane.
    """
    fresh = standing.first_due is not None and standing.first_due <= now
    stale = standing.again_due is not None and standing.again_due <= now
    if not (fresh and stale):
        return Allowance(total, 0) if fresh else Allowance(0, total)
    first = total // 2 + (total % 2 if random >= 0.5 else 0)
    return Allowance(first, total - first)


def shares(demands: Mapping[int, int], leased: Mapping[int, int], surplus: int, limit: int) -> dict[int, int]:
    """How many deliveries each endpoint is granted of its demand: `limit` in all, max-min fair, small demands met first.

    `surplus` is how many more all endpoints together may have leased. If it is too small, each endpoint still gets up to
    `ASSURED`, so the leases of hanging endpoints cannot block the others.
    """
    if sum(demands.values()) > surplus:
        assured = {each: min(demand, max(0, ASSURED - leased.get(each, 0))) for each, demand in demands.items()}
        rest = {each: demand - assured[each] for each, demand in demands.items()}
        more = _evenly(rest, max(0, surplus - sum(assured.values())))
        demands = {each: assured[each] + more[each] for each in demands}
    return _evenly(demands, limit)


def available(standing: Standing, now: datetime) -> float:
    """The tokens in the bucket of a rate-limited endpoint: it fills at the rate, up to one second's worth, at least 1."""
    rate = standing.rate_limit
    assert rate is not None
    burst = max(1.0, rate)
    if standing.tokens is None or standing.tokens_at is None:
        return burst
    return min(burst, standing.tokens + rate * max(0.0, (now - standing.tokens_at).total_seconds()))


def _within_rate(free: int, standing: Standing, now: datetime) -> Allowance:
    if standing.rate_limit is None:
        return Allowance(free)
    tokens = available(standing, now)
    if tokens < 1.0:
        return Allowance(look_at=now + timedelta(seconds=(1.0 - tokens) / standing.rate_limit))
    return Allowance(min(free, int(tokens)))


def _evenly(demands: Mapping[int, int], total: int) -> dict[int, int]:
    """Divides `total` as evenly as the demands allow; if there is not one for each, the smallest demands get one."""
    granted = {}
    for left, (each, demand) in zip(range(len(demands), 0, -1), sorted(demands.items(), key=lambda item: item[1]), strict=True):
        granted[each] = min(demand, -(-total // left))
        total -= granted[each]
    return granted
