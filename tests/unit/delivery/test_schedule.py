"""When a relay looks at endpoints again: together if possible, soon if necessary, and always some time."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.claim import Looked
from pipeline.store.deliveries.claims import Due, Page
from pipeline.store.deliveries.notify import ANY
from workers.relay.schedule import LATER, TICK, CheckSchedule, EndpointPace

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def full(leased: int, excess: int) -> Looked:
    """The result of looking at an endpoint whose window is full: nothing was granted."""
    return Looked(leased=leased, granted=0, claimed=0, more=False, excess=excess, look_at=None, held=True)


def page(*endpoint_ids: int) -> Page:
    """A complete page: these endpoints, each with something due."""
    return Page({each: Due(NOW) for each in endpoint_ids}, None)


@pytest.mark.parametrize("excess", [-2000, -1, 0, 1, 2000])
@pytest.mark.parametrize("silence", [1.0, 100.0, 100_000.0])
def test_an_endpoint_that_got_nothing_is_looked_at_again_soon_however_slow_it_was(excess, silence) -> None:
    schedule = CheckSchedule()
    schedule.surveyed(page(1), NOW, 0.0)
    schedule.looked({1: full(100, excess)}, (), NOW)
    schedule.looked({1: full(99, excess)}, (), NOW + timedelta(seconds=1))  # one delivery was settled
    later = NOW + timedelta(seconds=1 + silence)

    schedule.looked({1: full(99, excess)}, (), later)

    assert [] == schedule.wanted(later)
    assert [1] == schedule.wanted(later + timedelta(seconds=LATER, milliseconds=TICK))


def test_endpoints_whose_windows_are_full_are_looked_at_together() -> None:
    schedule = CheckSchedule()
    schedule.surveyed(page(*range(20)), NOW, 0.0)
    for each in range(20):
        schedule.looked({each: full(100, 25)}, (), NOW + timedelta(milliseconds=each))
    for each in range(20):  # all settle fast, each at a different time
        schedule.looked({each: full(0, 5)}, (), NOW + timedelta(milliseconds=20 + each))

    moments = {due.timestamp() for due in schedule._held._due.values()}

    assert len(moments) <= 3
    assert all(moment > (NOW + timedelta(milliseconds=20)).timestamp() for moment in moments)


HELD = range(1, 4_001)
ROUND = timedelta(milliseconds=200)


@pytest.mark.parametrize("hold", [None, timedelta(seconds=30)], ids=["windows are full", "breakers are open"])
def test_any_number_of_endpoints_that_are_held_keep_nobody_else_waiting(hold) -> None:
    """A relay whose rounds take 200 ms has looked at all endpoints once; each of them is notified every two seconds,
    which is twice as often as the relay can look at it.
    """
    schedule, now, waiting, waited = CheckSchedule(), NOW, {}, []
    overdue = Due(NOW - timedelta(hours=1))
    schedule.surveyed(Page(dict.fromkeys(HELD, overdue), None), NOW, 0.2)
    schedule.looked({each: waits(now, hold) for each in HELD}, (), NOW)
    for number in range(100):
        if schedule.wants_survey(now):
            found = Due(now + hold, held=True) if hold else overdue
            schedule.surveyed(Page(dict.fromkeys(HELD, found) | {each: Due(now) for each in waiting}, None), now, 0.2)
        waiting[20_000 + number] = now
        schedule.notified([*HELD[number % 10 :: 10], 20_000 + number], now)
        wanted = schedule.wanted(now)
        looked = {each: waits(now, hold) if each in HELD else CLAIMED for each in wanted}
        schedule.looked(looked, (), now)
        now += ROUND
        waited += [now - waiting.pop(each) for each in wanted if each in waiting]

    assert len(waited) >= 95
    assert max(waited) <= timedelta(seconds=1)


def waits(now: datetime, hold: timedelta | None) -> Looked:
    """The result of looking at an endpoint where something is due that may not be claimed yet."""
    return Looked(leased=100, granted=0, claimed=0, more=False, excess=25, look_at=hold and now + hold, held=True)


CLAIMED = Looked(leased=0, granted=1, claimed=1, more=False, excess=0, look_at=None)


def test_what_is_held_gets_its_share_of_the_rounds_however_much_others_ask_for() -> None:
    schedule, now, seen = CheckSchedule(), NOW, set()
    schedule.surveyed(Page(dict.fromkeys(range(100), Due(NOW, held=True)), None), now, 0.0)
    for _ in range(2):
        schedule.notified(range(1000, 2000), now)
        wanted = schedule.wanted(now)
        seen |= {each for each in wanted if each < 100}
        schedule.looked({each: CLAIMED if each >= 100 else waits(now, timedelta(seconds=9)) for each in wanted}, (), now)
        now += ROUND

    assert set(range(100)) == seen


def test_a_survey_goes_on_where_it_stopped_and_forgets_only_what_it_has_passed() -> None:
    schedule = CheckSchedule()
    schedule.surveyed(Page({1: Due(NOW), 2: Due(NOW)}, 2), NOW, 0.1)
    assert 2 == schedule.surveyed_through
    assert schedule.wants_survey(NOW), "the first one hurries"
    schedule.surveyed(Page({3: Due(NOW), 9: Due(NOW)}, None), NOW, 0.1)
    assert [1, 2, 3, 9] == sorted(schedule.wanted(NOW))
    assert not schedule.wants_survey(NOW + timedelta(seconds=0.9)), "a fifth of the time at most"

    later = NOW + timedelta(seconds=1.1)
    schedule.surveyed(Page({2: Due(NOW)}, 2), later, 0.1)
    assert [2, 3, 9] == sorted(schedule.wanted(later))
    assert not schedule.wants_survey(later + timedelta(seconds=0.3))
    schedule.notified([ANY], later)
    assert schedule.wants_survey(later)


def test_the_next_survey_does_not_wait_long_after_postgres_stood_still() -> None:
    schedule = CheckSchedule()
    schedule.surveyed(page(1), NOW, 0.0)
    for found in (page(1), Page({1: Due(NOW)}, 1)):
        schedule.surveyed(found, NOW, 60.0)
        assert not schedule.wants_survey(NOW + timedelta(seconds=29))
        assert schedule.wants_survey(NOW + timedelta(seconds=30))


def test_far_from_postgres_a_fast_endpoint_has_a_window_that_lasts_until_the_first_is_settled() -> None:
    windows = {}
    for away in (0.0, 0.1):
        pace = EndpointPace(NOW, 500)
        pace.learn(full(0, 0), NOW + timedelta(seconds=1))  # 500 were settled in a second
        windows[away] = pace.window(20, away)

    assert {0.0: 100, 0.1: 675} == windows
