import threading
import time

import pytest

from workers.mail.pull.memory_budget import MemoryBudget


def soon() -> float:
    return time.monotonic() + 0.05


def test_only_so_many_bytes_are_in_hand() -> None:
    room = MemoryBudget(10, batch=10)
    taken = room.take(6, soon())
    assert room.take(4, soon()) == 4
    with pytest.raises(TimeoutError):
        room.take(1, soon())
    room.give(taken)
    assert room.take(5, soon()) == 5


def test_a_mail_larger_than_a_batch_is_in_the_way_of_others_like_it_alone() -> None:
    room = MemoryBudget(10, batch=5)
    assert room.take(3, soon()) == 3  # still held when the large one is taken
    assert room.take(100, soon()) == 100
    with pytest.raises(TimeoutError):
        room.take(6, soon())
    assert room.take(5, soon()) == 5
    room.give(100)
    assert room.take(6, soon()) == 6


def test_who_waits_goes_on_when_there_is_room() -> None:
    room = MemoryBudget(10, batch=10)
    room.take(10, soon())
    got = []
    thread = threading.Thread(target=lambda: got.append(room.take(3, time.monotonic() + 5)))
    thread.start()
    room.give(10)
    thread.join(5)

    assert got == [3]
