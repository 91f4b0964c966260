"""Reading takes its share of the time, and no more, however many ask."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from anyio import CapacityLimiter

from workers.console.pace import BURST, Pace


class Clock:
    """Goes on while somebody answers or waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds
        await asyncio.sleep(0)

    def answer(self, seconds: float) -> Callable[[], float]:
        def work() -> float:
            self.now += seconds
            return self.now

        return work


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asked(pace: Pace, *work: Callable[[], float], by: Sequence[str] = ()) -> list[float]:
    """What each answered, asked for at once, by one person or by these."""

    async def all_of_them() -> list[float]:
        threads = CapacityLimiter(1)
        who = by or ["kim"] * len(work)
        answers: list[Awaitable[float]] = [pace.run(name, each, threads) for name, each in zip(who, work, strict=True)]
        return await asyncio.gather(*answers)

    return asyncio.run(all_of_them())


def test_without_a_pause_all_together_get_the_share(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)
    asked(pace, clock.answer(BURST))
    began = clock.now
    asked(pace, *[clock.answer(0.1) for _ in range(40)])

    assert pytest.approx(0.25, rel=0.1) == 4.0 / (clock.now - began)


def test_who_asks_now_and_then_never_waits(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)
    for _ in range(100):
        asked(pace, clock.answer(0.1))
        clock.now += 0.4

    assert 0.0 == clock.waited


def test_after_a_rest_some_are_answered_at_once_but_not_more_for_a_longer_rest(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)
    clock.now += 3600.0
    waited = []
    for _ in range(40):
        asked(pace, clock.answer(0.1))
        waited.append(clock.waited)

    assert 0.0 == waited[int(BURST / 0.1)]
    assert waited[-1] > 1.0


def test_who_asks_without_a_pause_delays_another_by_one_answer(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)
    asked(pace, clock.answer(BURST))
    answered = asked(pace, *[clock.answer(0.1) for _ in range(21)], by=[*["kim"] * 20, "lee"])

    assert 3 == sorted(answered).index(answered[-1]) + 1  # after the one that has its turn, and the next one


def test_who_gives_up_waiting_holds_up_nobody(clock) -> None:
    async def some_give_up() -> list[str]:
        pace, threads, done = Pace(0.25, clock, clock.pause), CapacityLimiter(1), list[str]()

        async def ask(name: str) -> None:
            await pace.run(name, clock.answer(BURST), threads)
            done.append(name)

        tasks = [asyncio.create_task(ask(name)) for name in ("first", "second", "third", "third", "fourth", "fifth")]
        await tasks[0]
        for task in tasks[1:5]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ask("sixth")
        return done

    assert ["first", "fifth", "sixth"] == asyncio.run(asyncio.wait_for(some_give_up(), 10))


def test_they_wait_in_the_order_of_their_coming(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)
    asked(pace, clock.answer(BURST))
    answered = asked(pace, *[clock.answer(0.1) for _ in range(5)])

    assert sorted(answered) == answered


def test_what_fails_is_counted_too(clock) -> None:
    pace = Pace(0.25, clock, clock.pause)

    def fail() -> float:
        clock.now += BURST
        raise LookupError

    with pytest.raises(LookupError):
        asked(pace, fail)
    asked(pace, clock.answer(0.1))

    assert clock.waited > 0.0


def test_without_a_share_nobody_waits(clock) -> None:
    pace = Pace(0.0, clock, clock.pause)
    asked(pace, *[clock.answer(10.0) for _ in range(5)])

    assert 0.0 == clock.waited
