"""When to try again. Pure: the randomness comes in as a number."""

from collections.abc import Sequence
from datetime import datetime, timedelta

MAX_HINT = 24 * 3600.0  # seconds; the longest `Retry-After` that is honoured
JITTER = 0.1  # fraction of the delay, only ever added


def next_attempt(
    schedule: Sequence[float], attempt: int, now: datetime, retry_after: float | None, random: float
) -> datetime | None:
    """The time of the try after the `attempt`-th (1, 2, ...), or None when the schedule has ended.

    It is the later of the schedule's time and the endpoint's `retry_after` (seconds, capped at 24 h), plus a jitter of at
    most a tenth, chosen by `random` in [0, 1): never earlier than either.
    """
    if attempt > len(schedule):
        return None
    hint = min(max(retry_after or 0.0, 0.0), MAX_HINT)
    delay = max(schedule[attempt - 1], hint)
    return now + timedelta(seconds=delay * (1 + JITTER * random))
