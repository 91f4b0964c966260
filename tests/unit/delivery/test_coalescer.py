import asyncio
import threading
from collections.abc import Sequence

from workers.delivery.coalescer import Coalescer


def test_what_is_asked_soon_after_is_done_together_and_the_first_does_not_wait() -> None:
    done: list[list[int]] = []

    def work(items: Sequence[int]) -> list[int]:
        done.append(list(items))
        return [-item for item in items]

    async def main() -> list[int]:
        coalescer = Coalescer("test", work, 2.0)
        first = await asyncio.wait_for(coalescer.ask(1), 1.9)
        second = coalescer.ask(2)
        await asyncio.sleep(0.02)
        third = coalescer.ask(3)
        answers = [first, await second, await third]
        await coalescer.close()
        return answers

    assert [-1, -2, -3] == asyncio.run(main())
    assert [[1], [2, 3]] == done


def test_far_from_postgres_a_batch_is_begun_before_the_one_before_it_is_answered() -> None:
    both, begun = threading.Barrier(2), threading.Event()

    def work(items: Sequence[int]) -> list[int]:
        begun.set()
        both.wait(20)  # raises unless another batch is under way
        return [-item for item in items]

    async def main() -> list[int]:
        coalescer = Coalescer("test", work, round_trip=lambda: 0.1)
        first = coalescer.ask(1)
        await asyncio.to_thread(begun.wait, 20)
        second = coalescer.ask(2)
        answers = [await first, await second]
        await coalescer.close()
        return answers

    assert [-1, -2] == asyncio.run(main())
