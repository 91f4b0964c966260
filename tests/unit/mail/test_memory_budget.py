import threading
import time

import pytest

from workers.mail.pull.memory_budget import MemoryBudget


def soon() -> float:
    return time.monotonic() + 0.05


def test_only_so_many_bytes_are_in_hand() -> None:
    budget = MemoryBudget(10, batch=10)
    taken = budget.take(6, soon())
    assert budget.take(4, soon()) == 4
    with pytest.raises(TimeoutError):
        budget.take(1, soon())
    budget.give(taken)
    assert budget.take(5, soon()) == 5


def test_a_mail_larger_than_a_batch_is_in_the_way_of_others_like_it_alone() -> None:
    budget = MemoryBudget(10, batch=5)
    assert budget.take(3, soon()) == 3  # still held when the large one is taken
    assert budget.take(100, soon()) == 100
    with pytest.raises(TimeoutError):
        budget.take(6, soon())
    assert budget.take(5, soon()) == 5
    budget.give(100)
    assert budget.take(6, soon()) == 6


def test_a_waiter_continues_when_there_is_budget() -> None:
    budget = MemoryBudget(10, batch=10)
    budget.take(10, soon())
    got = []
    thread = threading.Thread(target=lambda: got.append(budget.take(3, time.monotonic() + 5)))
    thread.start()
    budget.give(10)
    thread.join(5)

    assert got == [3]
