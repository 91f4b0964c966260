from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.backoff import next_attempt
from schemas.endpoint import DEFAULT_RETRY

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 24 * 3600.0

SCHEDULES = st.lists(st.floats(0.0, 7 * DAY), max_size=12)
HINTS = st.none() | st.floats(allow_nan=False)
RANDOMS = st.floats(0.0, 1.0, exclude_max=True)


def seconds(due: datetime | None) -> float:
    assert due is not None
    return (due - NOW).total_seconds()


@given(SCHEDULES, st.integers(1, 20), HINTS, RANDOMS)
def test_the_next_try_is_never_early_and_late_by_a_tenth_at_most(schedule, attempt, hint, random) -> None:
    due = next_attempt(schedule, attempt, NOW, hint, random)

    if attempt > len(schedule):
        assert due is None
    else:
        wanted = max(schedule[attempt - 1], min(max(hint or 0.0, 0.0), DAY))
        assert wanted - 1e-6 <= seconds(due) <= wanted * 1.1 + 1e-6


@given(SCHEDULES, st.integers(1, 12), HINTS, st.tuples(RANDOMS, RANDOMS))
def test_more_randomness_never_makes_it_earlier(schedule, attempt, hint, randoms) -> None:
    less, more = (next_attempt(schedule, attempt, NOW, hint, random) for random in sorted(randoms))

    assert less is None if more is None else less is not None and less <= more


def test_the_default_schedule_has_ten_tries_over_three_days() -> None:
    dues = [next_attempt(DEFAULT_RETRY, attempt, NOW, None, 0.0) for attempt in range(1, 11)]

    assert [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400] == [seconds(due) for due in dues[:-1]]
    assert dues[-1] is None
    assert timedelta(hours=75, minutes=35, seconds=5) == sum((due - NOW for due in dues if due), timedelta())


@pytest.mark.parametrize(
    ("hint", "expected"),
    [(None, 5.0), (1.0, 5.0), (120.0, 120.0), (10 * DAY, DAY), (-3.0, 5.0)],
)
def test_a_hint_can_only_put_off_and_by_a_day_at_most(hint, expected) -> None:
    assert expected == seconds(next_attempt(DEFAULT_RETRY, 1, NOW, hint, 0.0))
