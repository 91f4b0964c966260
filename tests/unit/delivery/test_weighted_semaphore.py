import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from workers.delivery.weighted_semaphore import WeightedSemaphore


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.05


def late() -> float:
    return asyncio.get_running_loop().time() + 60


def test_so_many_are_inside_and_the_others_follow_in_order() -> None:
    async def main() -> None:
        semaphore, order = WeightedSemaphore(), []

        async def visit(name: int) -> None:
            assert await semaphore.enter(1, 2, late())
            order.append(name)
            await asyncio.sleep(0.001)
            semaphore.leave(1)

        await asyncio.gather(*(visit(name) for name in range(10)))
        assert list(range(10)) == order

    asyncio.run(main())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_those_who_come_after_one_whose_time_is_over_wait_all_the_same(loop) -> None:
    async def main() -> None:
        semaphore = WeightedSemaphore()
        assert await semaphore.enter(1, 1, late())
        over = asyncio.get_running_loop().time() - 1
        deadlines = [over, over, asyncio.get_running_loop().time() + 60]
        waiting = [asyncio.create_task(semaphore.enter(1, 1, deadline)) for deadline in deadlines]
        assert [False, False] == await asyncio.gather(*waiting[:2])
        semaphore.leave(1)
        assert await waiting[2]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_waiter_whose_deadline_passed_is_not_admitted() -> None:
    async def main() -> None:
        semaphore = WeightedSemaphore()
        assert await semaphore.enter(1, 1, soon())
        assert not await semaphore.enter(1, 1, soon())
        semaphore.leave(1)
        assert await semaphore.enter(1, 1, soon())

    asyncio.run(main())


def test_a_heavy_one_goes_in_alone() -> None:
    async def main() -> None:
        semaphore = WeightedSemaphore()
        assert await semaphore.enter(100, 10, soon())
        assert not await semaphore.enter(1, 10, soon())
        semaphore.leave(100)
        assert await semaphore.enter(1, 10, soon())
        assert not await semaphore.enter(100, 10, soon())

    asyncio.run(main())


def test_a_small_one_does_not_overtake_a_heavy_one_but_follows_when_that_gives_up() -> None:
    async def main() -> None:
        semaphore = WeightedSemaphore()
        assert await semaphore.enter(5, 10, late())
        heavy = asyncio.create_task(semaphore.enter(8, 10, soon() + 0.5))
        await asyncio.sleep(0)
        small = asyncio.create_task(semaphore.enter(3, 10, late()))
        await asyncio.sleep(0)
        assert not small.done()
        assert [False, True] == [await heavy, await small]

    asyncio.run(main())


def test_a_raised_limit_lets_the_next_in() -> None:
    async def main() -> None:
        semaphore = WeightedSemaphore()
        assert await semaphore.enter(1, 1, soon())
        assert await semaphore.enter(1, 2, soon())

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["leave", "give up", "cancel"])), max_size=30), st.integers(1, 10)
)
def test_no_capacity_is_lost_when_waiters_leave_give_up_or_are_cancelled(visits, limit) -> None:
    async def main() -> None:
        semaphore, inside = WeightedSemaphore(), []

        async def visit(weight: int, how: str) -> None:
            now = asyncio.get_running_loop().time()
            if await semaphore.enter(weight, limit, now + (0.001 if how == "give up" else 60)):
                inside.append(weight)
                try:
                    assert len(inside) == 1 or sum(inside) <= limit
                    await asyncio.sleep(0.0005)
                finally:
                    inside.remove(weight)
                    semaphore.leave(weight)

        tasks = [asyncio.create_task(visit(*each)) for each in visits]
        await asyncio.sleep(0.0007)
        for task, (_, how) in zip(tasks, visits, strict=True):
            if how == "cancel":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [] == [error for task in tasks if not task.cancelled() and (error := task.exception())]
        assert await semaphore.enter(limit, limit, soon())

    asyncio.run(main())
