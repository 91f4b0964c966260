from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliver import is_too_old, judge
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = Endpoint(1, "acme", "e", "http://127.0.0.1/", retry=(60.0, 60.0, 60.0), max_age=100.0)
DELIVERY = Delivery(1, 1, "acme", 0, UUID(int=1), 0, b"", None, b"{}", b"", b"", CREATED, UUID(int=2))
FAILED = Receipt(CREATED, 0.1, status=500, error="status")


def after(seconds: float) -> datetime:
    return CREATED + timedelta(seconds=seconds)


@pytest.mark.parametrize(("now", "outcome", "reason"), [(30, "retry", None), (40, "retry", None), (40.1, "dead", "expired")])
def test_what_would_be_too_old_at_its_next_try_is_dead_now(now, outcome, reason) -> None:
    settlement = judge(DELIVERY, ENDPOINT, FAILED, after(now), 0.0)

    assert (outcome, reason) == (settlement.outcome, settlement.reason)
    assert (settlement.next_attempt_at is None) == (outcome == "dead")


def test_a_hint_beyond_the_age_is_the_end_and_a_delivered_one_is_delivered_however_old() -> None:
    busy = replace(FAILED, status=429, retry_after=200.0)

    assert "expired" == judge(DELIVERY, ENDPOINT, busy, after(1), 0.0).reason
    assert "delivered" == judge(DELIVERY, ENDPOINT, Receipt(CREATED, 0.1, status=200), after(10_000), 0.0).outcome


def test_a_schedule_that_ended_first_is_called_so() -> None:
    assert "exhausted" == judge(replace(DELIVERY, attempts=3), ENDPOINT, FAILED, after(90), 0.0).reason


def test_a_replay_or_a_release_is_young_again() -> None:
    replayed = replace(DELIVERY, age_from=after(1000))

    assert "retry" == judge(replayed, ENDPOINT, FAILED, after(1010), 0.0).outcome
    assert not is_too_old(replayed, ENDPOINT, after(1100))
    assert is_too_old(replayed, ENDPOINT, after(1101))


@given(st.floats(0.0, 1e6), st.floats(0.0, 1.0, exclude_max=True), st.floats(1.0, 1e5))
def test_no_try_is_ever_planned_beyond_the_age(now, random, max_age) -> None:
    settlement = judge(DELIVERY, replace(ENDPOINT, max_age=max_age), FAILED, after(now), random)

    assert settlement.next_attempt_at is None or settlement.next_attempt_at <= after(max_age)
    assert "retry" == judge(DELIVERY, replace(ENDPOINT, max_age=None), FAILED, after(now), random).outcome
