"""An endpoint's health after the results of its deliveries: its breaker, the wait it asked for, how long it has only failed.

            ratio and count in the window                   probe_at has come, and no delivery is leased
    closed ───────────────────────────────> open ──────────────────────────────────────────────> half_open
       ^                                      ^                                                   │   │
       │                                      └──────────────── the probe failed: a longer wait ──┘   │
       └────────────────────────────────────────────────────────────── the probe was delivered ───────┘

Pure. An operator may force the breaker open or closed; then it stays so until it is released.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pipeline.delivery.backoff import JITTER
from schemas.endpoint_health import Health, Seen

BUSY: Final = 429
THROTTLES: Final = frozenset({BUSY, 502, 503, 504})  # statuses that slow down the whole endpoint, not only the delivery

THROTTLE: Final = (1.0, 60.0)  # seconds to wait without a hint: the first wait and the longest; doubled each time
LONGEST_HINT: Final = 3600.0  # seconds; one wrong response cannot stop an endpoint's deliveries for longer
_DOUBLINGS: Final = 32  # more would only overflow


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, for how long, and when an endpoint is disabled. Times in seconds."""

    ratio: float = 0.7  # of failures in the window, at which it opens
    least: int = 10  # failures in the window, below which it never opens
    window: float = 300.0
    wait: float = 10.0  # before the first probe; doubled with every probe that fails
    longest: float = 600.0
    disable_after: float = 5 * 86_400.0  # without a success, and with at least `least` failures


DEFAULT: Final = BreakerPolicy()


def after(health: Health, seen: Seen, now: datetime, policy: BreakerPolicy, random: float) -> Health:
    """The health after `seen`. `random` in [0, 1) chooses the jitter, which only adds."""
    health = _throttled(_counted(health, seen, now), seen, now, random)
    if health.forced or not (seen.successes or seen.failures):
        return health
    if health.breaker == "closed":
        return _closed(health, seen, now, policy, random)
    return _probed(health, seen, now, policy, random) if health.breaker == "half_open" else health


def is_clean(health: Health) -> bool:
    """Whether a success would change nothing, so that it need not be written."""
    return not (health.failing_since or health.window_from or health.throttles or health.breaker != "closed")


def probing(health: Health, now: datetime) -> Health:
    """The health when the breaker lets its one probe through; unchanged unless the probe is due."""
    if health.breaker == "open" and health.probe_at is not None and health.probe_at <= now:
        return replace(health, breaker="half_open", probe_at=None)
    return health


def force_open(health: Health, now: datetime) -> Health:
    """The health with the breaker forced open: nothing is sent until an operator releases it."""
    return replace(_fresh_window(health), breaker="open", forced=True, opened_at=health.opened_at or now, probe_at=None)


def force_closed(health: Health) -> Health:
    """The health with the breaker forced closed: everything is sent, whatever fails, until an operator releases it."""
    return replace(_shut(health), forced=True, not_before=None, throttles=0)


def released(health: Health, now: datetime) -> Health:
    """The health with the breaker automatic again; an open one lets a probe through at once."""
    if not health.forced:
        return health
    return replace(health, forced=False, probe_at=now if health.breaker == "open" else None)


def forgotten(health: Health) -> Health:
    """The health without any failures; a forced breaker stays forced."""
    if health.forced:
        return Health(health.breaker, forced=True, opened_at=health.opened_at)
    return Health()


def is_hopeless(health: Health, now: datetime, policy: BreakerPolicy) -> bool:
    """Whether the endpoint has only failed for so long that it must be disabled."""
    since = health.failing_since
    return since is not None and health.streak >= policy.least and (now - since).total_seconds() >= policy.disable_after


def _counted(health: Health, seen: Seen, now: datetime) -> Health:
    if seen.successes:
        return replace(health, failing_since=None, streak=0, last_error=seen.error or health.last_error)
    if seen.failures:
        since, streak = health.failing_since or now, health.streak + seen.failures
        return replace(health, failing_since=since, streak=streak, last_error=seen.error)
    return health


def _throttled(health: Health, seen: Seen, now: datetime, random: float) -> Health:
    """Applies requests to slow down. Responses during a wait, to requests from before it, do not count as further ones."""
    throttles = 0 if seen.successes else health.throttles
    if not seen.throttled:
        return replace(health, throttles=throttles)
    if health.not_before is None or health.not_before <= now:
        throttles += 1
    first, longest = THROTTLE
    own = min(first * 2.0 ** min(max(throttles, 1) - 1, _DOUBLINGS), longest)
    wait = max(own, min(seen.hint or 0.0, LONGEST_HINT)) * (1 + JITTER * random)
    until = now + timedelta(seconds=wait)
    return replace(health, throttles=max(throttles, 1), not_before=max(until, health.not_before or until))


def _closed(health: Health, seen: Seen, now: datetime, policy: BreakerPolicy, random: float) -> Health:
    began = health.window_from
    if began is not None and (now - began).total_seconds() > policy.window:
        health, began = _fresh_window(health), None
    failures = seen.failures - seen.busy
    if began is None and not failures:
        return health
    counted = replace(
        health,
        window_from=began or now,
        successes=health.successes + seen.successes,
        failures=health.failures + failures,
    )
    if counted.failures >= policy.least and counted.failures >= policy.ratio * (counted.failures + counted.successes):
        return _opened(counted, now, policy, random)
    return counted


def _probed(health: Health, seen: Seen, now: datetime, policy: BreakerPolicy, random: float) -> Health:
    return _shut(health) if seen.successes else _opened(health, now, policy, random)


def _opened(health: Health, now: datetime, policy: BreakerPolicy, random: float) -> Health:
    wait = min(policy.wait * 2.0 ** min(health.trips, _DOUBLINGS), policy.longest) * (1 + JITTER * random)
    return replace(
        _fresh_window(health),
        breaker="open",
        opened_at=health.opened_at or now,
        probe_at=now + timedelta(seconds=wait),
        trips=health.trips + 1,
    )


def _shut(health: Health) -> Health:
    return replace(_fresh_window(health), breaker="closed", opened_at=None, probe_at=None, trips=0)


def _fresh_window(health: Health) -> Health:
    return replace(health, window_from=None, successes=0, failures=0)
