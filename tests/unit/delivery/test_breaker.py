from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.allowance import opens_at
from pipeline.delivery.backoff import JITTER
from pipeline.delivery.breaker import (
    LONGEST_HINT,
    THROTTLE,
    BreakerPolicy,
    after,
    force_closed,
    force_open,
    is_clean,
    is_hopeless,
    probing,
    released,
)
from schemas.endpoint_health import Health, Seen

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = BreakerPolicy(ratio=0.7, least=10, window=300.0, wait=10.0, longest=600.0, disable_after=86_400.0)
FAILED = Seen(failures=1, error="connect: refused")
WELL = Seen(successes=1)

COUNTS = st.integers(0, 40)
RANDOMS = st.floats(0.0, 1.0, exclude_max=True)
HINTS = st.none() | st.floats(0.0, 1e7)


@st.composite
def seens(draw: st.DrawFn) -> Seen:
    failures = draw(COUNTS)
    busy = draw(st.integers(0, failures))
    throttled = busy > 0 or (failures > 0 and draw(st.booleans()))
    hint = draw(HINTS) if throttled else None
    return Seen(draw(COUNTS), failures, busy, throttled, hint, "why" if failures else None)


#: A sequence of events at an endpoint: the seconds that pass before each, and the event.
EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 1000.0),
        seens() | st.sampled_from(["probe", "force open", "force closed", "release"]),
        RANDOMS,
    ),
    max_size=30,
)


def happened(health: Health, what: Seen | str, now: datetime, random: float) -> Health:
    if isinstance(what, Seen):
        return after(health, what, now, POLICY, random)
    acts = {"probe": probing, "force open": force_open, "force closed": lambda health, _now: force_closed(health)}
    return acts.get(what, released)(health, now)


def lives(events) -> list[tuple[Health, Seen | str, datetime, Health]]:
    """The steps of a sequence: health before, event, time, and health after."""
    health, now, steps = Health(), NOW, []
    for seconds, what, random in events:
        now += timedelta(seconds=seconds)
        then = happened(health, what, now, random)
        steps.append((health, what, now, then))
        health = then
    return steps


@given(EVENTS)
def test_what_postgres_demands_of_a_row_always_holds(events) -> None:
    for _, _, _, health in lives(events):
        assert (health.breaker == "closed") == (health.opened_at is None)
        assert (health.breaker == "open" and not health.forced) == (health.probe_at is not None)
        assert not (health.forced and health.breaker == "half_open")
        assert (health.window_from is None) == (health.failures == 0)
        assert (health.failing_since is None) == (health.streak == 0)
        assert min(health.trips, health.successes, health.failures, health.throttles, health.streak) >= 0


@given(EVENTS)
def test_a_breaker_moves_along_its_arrows_and_no_others(events) -> None:
    allowed = {("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open")}
    for before, what, _, then in lives(events):
        if before.breaker == then.breaker:
            continue
        if isinstance(what, Seen) or what == "probe":
            assert (before.breaker, then.breaker) in allowed
            assert not before.forced
        else:
            assert what in ("force open", "force closed")


@given(EVENTS)
def test_it_opens_only_on_enough_failures_and_a_failed_probe(events) -> None:
    for before, what, now, then in lives(events):
        if before.breaker == then.breaker or then.breaker != "open" or what == "force open":
            continue
        assert isinstance(what, Seen)
        assert not what.successes or before.breaker == "closed"
        if before.breaker == "closed":
            fresh = before.window_from is None or (now - before.window_from).total_seconds() > POLICY.window
            failures = what.failures - what.busy + (0 if fresh else before.failures)
            successes = what.successes + (0 if fresh else before.successes)
            assert failures >= POLICY.least
            assert failures / (failures + successes) >= POLICY.ratio - 1e-9


@given(EVENTS)
def test_a_probe_waits_at_least_as_long_as_the_policy_says_and_at_most_a_tenth_longer_than_the_cap(events) -> None:
    for before, _, now, then in lives(events):
        if then.breaker == "open" and before.breaker != "open" and not then.forced:
            assert then.probe_at is not None
            wait = (then.probe_at - now).total_seconds()
            assert min(POLICY.wait * 2 ** (then.trips - 1), POLICY.longest) <= wait + 1e-6
            assert wait <= POLICY.longest * (1 + JITTER) + 1e-6


@given(EVENTS)
def test_an_open_breaker_lets_a_probe_through_only_when_it_is_time(events) -> None:
    for before, _, now, then in lives(events):
        if before.breaker == "open" and then.breaker == "half_open":
            assert before.probe_at is not None
            assert before.probe_at <= now
            assert not before.forced


@given(EVENTS)
def test_what_an_operator_forced_stays_until_it_is_released(events) -> None:
    for before, what, _, then in lives(events):
        if before.forced and (isinstance(what, Seen) or what == "probe"):
            assert (before.breaker, True) == (then.breaker, then.forced)


@given(EVENTS)
def test_a_success_ends_every_streak_and_changes_nothing_where_nothing_failed(events) -> None:
    for before, what, _, then in lives(events):
        if isinstance(what, Seen) and what.successes:
            assert (None, 0) == (then.failing_since, then.streak)
        if isinstance(what, Seen) and what.successes and not what.failures:
            assert 0 == then.throttles
            assert before.breaker != "half_open" or is_clean(then)
        if is_clean(before) and isinstance(what, Seen) and not what.failures:
            assert before == then


@given(EVENTS)
def test_a_wait_is_never_shortened_by_an_answer_and_bounded(events) -> None:
    for before, what, now, then in lives(events):
        if isinstance(what, Seen) and before.not_before is not None:
            assert then.not_before is not None
            assert then.not_before >= before.not_before
        if isinstance(what, Seen) and what.throttled:
            assert then.not_before is not None
            wait = (then.not_before - now).total_seconds()
            assert wait + 1e-6 >= min(what.hint or 0.0, LONGEST_HINT)
            assert wait >= THROTTLE[0] - 1e-6
            if before.not_before is None or before.not_before <= now:
                assert wait <= max(LONGEST_HINT, THROTTLE[1]) * (1 + JITTER) + 1e-6


def test_ten_failures_in_a_row_open_it_and_nine_do_not() -> None:
    health = Health()
    for _ in range(9):
        health = after(health, FAILED, NOW, POLICY, 0.0)
    assert "closed" == health.breaker

    health = after(health, FAILED, NOW, POLICY, 0.0)

    assert ("open", 1, NOW, NOW + timedelta(seconds=10)) == (health.breaker, health.trips, health.opened_at, health.probe_at)


def test_failures_among_enough_successes_or_long_ago_do_not_open_it() -> None:
    health = after(Health(), Seen(successes=5, failures=9), NOW, POLICY, 0.0)
    assert "closed" == after(health, FAILED, NOW, POLICY, 0.0).breaker
    late = after(after(Health(), Seen(failures=9), NOW, POLICY, 0.0), FAILED, NOW + timedelta(seconds=301), POLICY, 0.0)

    assert ("closed", 1) == (late.breaker, late.failures)


def test_successes_before_the_first_failure_are_not_counted() -> None:
    health = after(Health(), Seen(successes=1000), NOW, POLICY, 0.0)

    assert "open" == after(health, Seen(failures=10), NOW, POLICY, 0.0).breaker


def test_each_failed_probe_doubles_the_wait_up_to_the_cap_and_a_delivered_one_closes() -> None:
    health, now, waits = after(Health(), Seen(failures=10), NOW, POLICY, 0.0), NOW, []
    for _ in range(9):
        assert health.probe_at is not None
        waits.append((health.probe_at - now).total_seconds())
        now = health.probe_at
        health = after(probing(health, now), FAILED, now, POLICY, 0.0)

    assert [10, 20, 40, 80, 160, 320, 600, 600, 600] == waits
    assert NOW == health.opened_at
    assert health.probe_at is not None
    assert is_clean(after(probing(health, health.probe_at), WELL, now, POLICY, 0.0))


def test_answers_to_what_was_sent_before_it_opened_do_not_move_it() -> None:
    opened = after(Health(), Seen(failures=10), NOW, POLICY, 0.0)

    assert opened.probe_at == after(opened, Seen(failures=20), NOW, POLICY, 0.0).probe_at
    assert "open" == after(opened, Seen(successes=20), NOW, POLICY, 0.0).breaker


def test_a_busy_endpoint_waits_and_its_breaker_stays_closed_but_a_busy_probe_is_a_failed_one() -> None:
    busy = Seen(failures=50, busy=50, throttled=True, error="status: answered 429")
    health = after(Health(), busy, NOW, POLICY, 0.0)
    assert ("closed", NOW + timedelta(seconds=1)) == (health.breaker, health.not_before)

    opened = after(Health(), Seen(failures=10), NOW, POLICY, 0.0)

    assert "open" == after(replace(opened, breaker="half_open", probe_at=None), busy, NOW, POLICY, 0.0).breaker


def test_waits_without_a_hint_grow_with_each_repeat_and_begin_anew_after_a_success() -> None:
    refused = Seen(failures=20, busy=20, throttled=True)
    health, now, waits = Health(), NOW, []
    for _ in range(8):
        health = after(health, refused, now, POLICY, 0.0)
        late = after(health, refused, now, POLICY, 0.0)  # sent before the wait began, so it does not count as a repeat
        assert (health.not_before, health.throttles) == (late.not_before, late.throttles)
        assert health.not_before is not None
        waits.append((health.not_before - now).total_seconds())
        now = health.not_before

    assert [1, 2, 4, 8, 16, 32, 60, 60] == waits
    health = after(after(health, WELL, now, POLICY, 0.0), refused, now, POLICY, 0.0)
    assert now + timedelta(seconds=1) == health.not_before


@pytest.mark.parametrize(("hint", "waits"), [(None, 1), (0.5, 1), (120.0, 120), (1e6, 3600)])
def test_a_hint_holds_the_whole_endpoint_and_is_capped(hint, waits) -> None:
    health = after(Health(), Seen(failures=1, busy=1, throttled=True, hint=hint), NOW, POLICY, 0.0)

    assert NOW + timedelta(seconds=waits) == health.not_before == opens_at(health, NOW)


def test_only_a_long_time_of_nothing_but_failures_and_enough_of_them_is_hopeless() -> None:
    failing = after(Health(), Seen(failures=9), NOW, POLICY, 0.0)
    later = NOW + timedelta(seconds=POLICY.disable_after)
    enough = after(failing, FAILED, later, POLICY, 0.0)

    assert [False, False, True, False] == [
        is_hopeless(failing, later, POLICY),
        is_hopeless(enough, later - timedelta(seconds=1), POLICY),
        is_hopeless(enough, later, POLICY),
        is_hopeless(after(enough, Seen(successes=1, failures=50), later, POLICY, 0.0), later, POLICY),
    ]
    assert NOW == enough.failing_since


def test_forcing_and_releasing() -> None:
    opened = force_open(Health(), NOW)
    assert ("open", True, None, NOW) == (opened.breaker, opened.forced, opened.probe_at, opened.opened_at)
    assert opened == probing(opened, NOW + timedelta(days=400))
    freed = released(opened, NOW)
    assert ("open", False, NOW) == (freed.breaker, freed.forced, freed.probe_at)
    assert "half_open" == probing(freed, NOW).breaker

    closed = force_closed(after(Health(), Seen(failures=10, throttled=True, hint=50.0), NOW, POLICY, 0.0))
    assert ("closed", True, None, 0) == (closed.breaker, closed.forced, closed.not_before, closed.trips)
    assert "closed" == after(closed, Seen(failures=100), NOW, POLICY, 0.0).breaker
    assert not released(closed, NOW).forced
