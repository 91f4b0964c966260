import threading
import time

import pytest

from workers.mail_room import Room


def soon() -> float:
    return time.monotonic() + 0.05


def test_only_so_many_bytes_are_in_hand() -> None:
    room = Room(10)
    taken = room.take(6, soon())
    assert room.take(4, soon()) == 4
    with pytest.raises(TimeoutError):
        room.take(1, soon())
    room.give(taken)
    assert room.take(5, soon()) == 5


def test_what_is_larger_than_the_room_has_it_alone() -> None:
    room = Room(10)
    assert room.take(100, soon()) == 10
    with pytest.raises(TimeoutError):
        room.take(1, soon())
    room.give(10)
    assert room.take(10, soon()) == 10


def test_who_waits_goes_on_when_there_is_room() -> None:
    room = Room(10)
    room.take(10, soon())
    got = []
    thread = threading.Thread(target=lambda: got.append(room.take(3, time.monotonic() + 5)))
    thread.start()
    room.give(10)
    thread.join(5)

    assert got == [3]
