"""How much of each endpoint may be claimed now: fair shares, one lane beside the other, rate, waits and breaker. Pure."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from schemas.allowance import Allowance, Standing
from schemas.endpoint_health import Health

ASSURED = 10  # deliveries that every endpoint may have leased, however many others are


def wanted(standing: Standing, window: int, now: datetime) -> Allowance:
    """What the endpoint could use, if there were no others, `window` being the most of it that may be leased.

    Everything is in `first`; `split` divides it. An endpoint whose window is nearly full wants nothing, until a quarter of it
    is free: claims of one or two would cost more than they bring.
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
    """Until when nothing of the endpoint may be sent, if that is known and not past."""
    waits = [at for at in (health.not_before, health.probe_at) if at is not None and at > now]
    return max(waits, default=None)


def split(total: int, standing: Standing, now: datetime, random: float) -> Allowance:
    """Half for each lane in which something is due, the odd one by `random` in [0, 1): neither can starve the other.

    Half of what an endpoint takes goes to its new deliveries, however many retries are overdue, and the other way round; what
    a lane leaves of its half, the other gets with the next claim, which follows at once.
    """
    fresh = standing.first_due is not None and standing.first_due <= now
    stale = standing.again_due is not None and standing.again_due <= now
    if not (fresh and stale):
        return Allowance(total, 0) if fresh else Allowance(0, total)
    first = total // 2 + (total % 2 if random >= 0.5 else 0)
    return Allowance(first, total - first)


def shares(rooms: Mapping[int, int], leased: Mapping[int, int], surplus: int, limit: int) -> dict[int, int]:
    """What each endpoint is granted of the room it could use: `limit` in all, divided evenly, small wishes fulfilled first.

    `surplus` is what may still be leased by all together. When it is short, each endpoint still gets up to `ASSURED`: leases
    of endpoints that hang cannot keep the others from being claimed.
    """
    if sum(rooms.values()) > surplus:
        assured = {each: min(room, max(0, ASSURED - leased.get(each, 0))) for each, room in rooms.items()}
        rest = {each: room - assured[each] for each, room in rooms.items()}
        more = _evenly(rest, max(0, surplus - sum(assured.values())))
        rooms = {each: assured[each] + more[each] for each in rooms}
    return _evenly(rooms, limit)


def available(standing: Standing, now: datetime) -> float:
    """The tokens in the bucket of an endpoint with a rate: it fills with the rate, up to what one second brings, or one."""
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


def _evenly(rooms: Mapping[int, int], total: int) -> dict[int, int]:
    """As even as the wishes allow, `total` at most; where there is not one for each, the first ones of `rooms` get it."""
    granted = {}
    for left, (each, room) in zip(range(len(rooms), 0, -1), sorted(rooms.items(), key=lambda item: item[1]), strict=True):
        granted[each] = min(room, -(-total // left))
        total -= granted[each]
    return granted
