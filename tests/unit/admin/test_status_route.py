"""The route in `waxseal status`: rates and times to drain between two samples, and questions that hang."""

import threading
import time
from collections.abc import Mapping

import pytest

from ops.admin.asked import Asked, Unheard
from ops.admin.status.facts import Backlog
from ops.admin.status.members import FLOWS, Said
from ops.admin.status.route import Sample, rates, route

NOTHING = dict.fromkeys(FLOWS, 0.0)


def said(**flows: float) -> Said:
    return Said(flows={**NOTHING, **flows})


def backlog(overdue: int) -> Backlog:
    return Backlog(overdue, 12.0 if overdue else None, 7, 3, None, 0, None, 5, 1.5)


def sample(at: float, inbox: int = 0, overdue: int = 0, heard: Mapping[str, Said] | None = None) -> Sample:
    return Sample(at, heard or {}, {"waxseal.ingest": (inbox, 1), "waxseal.unrouted": None}, backlog(overdue))


def stage(name: str, before: Sample | None, now: Sample) -> dict[str, object]:
    (found,) = (each for each in route(before, now, (4, 60.0)) if each["stage"] == name)
    return found


def test_rates_are_what_the_processes_counted_between_the_samples() -> None:
    before = sample(0, heard={"a": said(record=100.0, deliver=5.0), "b": said(record=10.0)})
    now = sample(2, heard={"a": said(record=150.0, deliver=5.0), "b": said(record=30.0)})

    assert {**NOTHING, "record": 35.0} == rates(before, now)
    assert {} == rates(None, now)


def test_a_process_that_was_restarted_or_answered_only_once_makes_no_false_rate() -> None:
    before = sample(0, heard={"restarted": said(record=900.0), "new": Said(unready="does not answer"), "up": said()})
    now = sample(1, heard={"restarted": said(record=3.0), "new": said(record=500.0), "up": said(record=2.0)})

    assert 2.0 == rates(before, now)["record"]
    assert {} == rates(sample(0, heard={"one": Said()}), sample(1, heard={"one": Said()}))


@pytest.mark.parametrize(
    ("drained", "before", "now"),
    [
        (20.0, sample(0, inbox=60), sample(10, inbox=40)),
        (None, sample(0, inbox=40), sample(10, inbox=40)),
        (None, sample(0, inbox=40), sample(10, inbox=60)),
        (0.0, sample(0, inbox=40), sample(10)),
        (None, None, sample(10, inbox=40)),
        (None, Sample(0), sample(10, inbox=40)),
    ],
)
def test_the_inbox_is_drained_at_the_pace_at_which_it_fell(drained, before, now) -> None:
    assert drained == stage("record", before, now)["drain_seconds"]


def test_what_is_due_has_an_age_and_a_time_to_drain() -> None:
    claim = stage("claim", sample(0, overdue=50), sample(5, overdue=25))

    assert (25, 12.0, 5.0) == (claim["waiting"], claim["oldest_seconds"], claim["drain_seconds"])
    assert (4, 60.0) == (stage("bury", None, sample(0))["waiting"], stage("bury", None, sample(0))["oldest_seconds"])


def test_without_an_answer_a_stage_says_nothing() -> None:
    found = route(Sample(0), Sample(1), None)

    assert {None} == {value for each in found for name, value in each.items() if name != "stage"}


def test_a_question_that_hangs_is_not_asked_again_and_its_answer_counts_when_it_comes() -> None:
    asked, go, begun = Asked[str](), threading.Event(), []

    def question() -> str:
        begun.append(time.monotonic())
        go.wait(30)
        return "at last"

    asked.ask(question)
    with pytest.raises(Unheard, match="no answer within"):
        asked.answer(0.01)
    asked.ask(question)
    go.set()

    assert "at last" == asked.answer(30)
    assert 1 == len(begun)


def test_a_question_that_failed_just_now_is_not_asked_again() -> None:
    asked, begun = Asked[str](), []

    def question() -> str:
        begun.append(1)
        raise OSError("refused")

    for _ in range(2):
        asked.ask(question)
        with pytest.raises(OSError, match="refused"):
            asked.answer(30)

    assert [1] == begun
