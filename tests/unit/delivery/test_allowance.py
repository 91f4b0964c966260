from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.allowance import ASSURED, available, shares, split, wanted
from schemas.allowance import Allowance, Standing
from schemas.endpoint_health import Health

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=5)
DUE = Standing(1, "active", 20, None, 0, NOW, None)

ROOMS = st.dictionaries(st.integers(1, 30), st.integers(0, 300), max_size=20)
RANDOMS = st.floats(0.0, 1.0, exclude_max=True)


def opened(**fields: object) -> Standing:
    return replace(DUE, health=Health("open", opened_at=NOW, **fields))  # type: ignore[arg-type]


@given(ROOMS, ROOMS, st.integers(0, 5000), st.integers(1, 1000))
def test_no_endpoint_gets_more_than_it_wishes_and_all_together_not_more_than_the_limit(wishes, leased, surplus, limit) -> None:
    granted = shares(wishes, leased, surplus, limit)

    assert granted.keys() == wishes.keys()
    assert all(0 <= granted[each] <= wish for each, wish in wishes.items())
    assert sum(granted.values()) <= limit
    assured = sum(min(wish, max(0, ASSURED - leased.get(each, 0))) for each, wish in wishes.items())
    assert sum(granted.values()) <= max(surplus, assured)


@given(ROOMS, st.integers(1, 1000))
def test_what_is_there_is_divided_evenly_and_all_of_it(wishes, limit) -> None:
    granted = shares(wishes, {}, 1_000_000, limit)

    assert min(limit, sum(wishes.values())) == sum(granted.values())
    unfulfilled = [granted[each] for each, wish in wishes.items() if granted[each] < wish]
    assert not unfulfilled or max(granted.values()) - min(unfulfilled) <= 1


@given(ROOMS, st.integers(1, 30))
def test_an_endpoint_with_few_leases_gets_its_own_however_many_others_have(wishes, poor) -> None:
    wishes = {**wishes, poor: 50}
    leased = {**dict.fromkeys(wishes, 4000), poor: 3}

    assert ASSURED - 3 == shares(wishes, leased, 0, 10_000)[poor]


@given(st.integers(1, 500), RANDOMS)
def test_new_deliveries_and_retries_share_evenly_and_one_alone_gets_everything(total, random) -> None:
    both = replace(DUE, again_due=NOW)
    wish = split(total, both, NOW, random)

    assert total == wish.total
    assert abs(wish.first - wish.again) <= 1
    assert Allowance(total, 0) == split(total, DUE, NOW, random)
    assert Allowance(total, 0) == split(total, replace(both, again_due=SOON), NOW, random)
    assert Allowance(0, total) == split(total, replace(both, first_due=SOON), NOW, random)


def test_a_single_place_goes_to_either_lane_by_chance() -> None:
    both = replace(DUE, again_due=NOW)

    assert [(0, 1), (1, 0)] == [(wish.first, wish.again) for wish in (split(1, both, NOW, r) for r in (0.2, 0.7))]


@given(st.floats(0.01, 1000.0), st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 300)), max_size=50))
def test_in_any_span_no_more_is_claimed_than_the_rate_and_one_burst_allow(rate, asked) -> None:
    standing, now, taken = replace(DUE, rate_limit=rate, tokens=None, tokens_at=None), NOW, 0
    for seconds, most in asked:
        now += timedelta(seconds=seconds)
        wish = wanted(replace(standing, first_due=now), most, now).total
        assert wish <= most
        taken += wish
        if wish:
            standing = replace(standing, tokens=available(standing, now) - wish, tokens_at=now)
        assert taken <= max(1.0, rate) + rate * (now - NOW).total_seconds() + 1e-6


def test_an_empty_bucket_says_when_the_next_token_comes() -> None:
    empty = replace(DUE, rate_limit=4.0, tokens=0.5, tokens_at=NOW)

    assert NOW + timedelta(seconds=0.125) == wanted(empty, 100, NOW).look_at
    assert 1 == wanted(empty, 100, NOW + timedelta(seconds=0.125)).total
    assert 4 == wanted(empty, 100, NOW + timedelta(hours=1)).total
    assert 0.5 == available(empty, NOW - timedelta(seconds=9)), "a clock that is behind adds nothing"


def test_nothing_is_wanted_before_something_is_due() -> None:
    assert (0, SOON) == (
        wanted(replace(DUE, first_due=SOON), 100, NOW).total,
        wanted(replace(DUE, first_due=SOON), 100, NOW).look_at,
    )
    assert Allowance() == wanted(replace(DUE, first_due=None), 100, NOW)


def test_a_window_is_filled_again_when_a_quarter_of_it_is_free() -> None:
    assert [100, 60, 25, 0, 0] == [wanted(replace(DUE, leased=leased), 100, NOW).total for leased in (0, 40, 75, 76, 140)]


def test_an_endpoint_that_asked_to_wait_waits_as_a_whole() -> None:
    waiting = replace(DUE, health=Health(not_before=SOON, throttles=1))

    assert Allowance(look_at=SOON) == wanted(waiting, 100, NOW)
    assert 100 == wanted(waiting, 100, SOON).total


def test_an_open_breaker_lets_one_through_when_it_is_time_and_nothing_is_under_way() -> None:
    assert Allowance(look_at=SOON) == wanted(opened(probe_at=SOON), 100, NOW)
    assert 1 == wanted(opened(probe_at=SOON), 100, SOON).total
    assert 0 == wanted(replace(opened(probe_at=NOW), leased=1), 100, NOW).total
    assert 0 == wanted(opened(forced=True), 100, NOW).total


def test_a_half_open_breaker_lets_the_next_probe_through_only_when_the_last_is_gone() -> None:
    half = replace(DUE, health=Health("half_open", opened_at=NOW))

    assert [1, 0] == [wanted(replace(half, leased=leased), 100, NOW).total for leased in (0, 1)]
