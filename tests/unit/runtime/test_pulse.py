import threading
from collections.abc import Callable, Iterator

import pytest

from ops.telemetry import pulse
from ops.telemetry.pulse import Pulse, Recent
from support.waiting import wait_for

Start = Callable[[Callable[[], None]], Pulse]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(pulse, "EVERY", 0.01)
    begun: list[Pulse] = []

    def begin(ask: Callable[[], None]) -> Pulse:
        begun.append(Pulse("Postgres", ask, 0.3))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def refuse() -> None:
    raise OSError("refused")


def test_a_server_that_answers_is_well(start: Start) -> None:
    asked = start(lambda: None)

    wait_for(lambda: asked.fault() is None)


def test_a_server_that_never_answered_is_not(start: Start) -> None:
    assert "Postgres has not answered yet" == start(refuse).fault()


def test_a_question_without_an_answer_holds_up_nobody_and_counts_when_the_answer_is_old(start: Start) -> None:
    hang, answered = threading.Event(), threading.Event()

    def ask() -> None:
        if answered.is_set():
            hang.wait(30)
        answered.set()

    asked = start(ask)
    wait_for(lambda: asked.fault() is None)
    wait_for(lambda: asked.fault() is not None)
    said = asked.fault()
    hang.set()

    assert said is not None
    assert said.startswith("Postgres has not answered for ")
    wait_for(lambda: asked.fault() is None)


def test_what_the_work_says_comes_first(start: Start) -> None:
    asked = start(refuse)

    assert "disk full" == asked.with_work(lambda: "disk full")()
    assert "Postgres has not answered yet" == asked.with_work(lambda: None)()


def test_trouble_is_over_with_a_success_or_after_a_while() -> None:
    trouble = Recent(60)
    assert trouble.fault() is None
    trouble.note("lost")
    assert "lost" == trouble.fault()
    trouble.clear()
    assert trouble.fault() is None
    brief = Recent(0.05)
    brief.note("lost")
    wait_for(lambda: brief.fault() is None)
