"""When a relay looks again: together where it can, soon where it must, and never at no time at all."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.claim import Looked
from workers.agenda import LATER, TICK, Agenda

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def full(leased: int, excess: int) -> Looked:
    """An endpoint that was granted nothing."""
    return Looked(leased=leased, granted=0, claimed=0, more=False, excess=excess, look_at=None)


@pytest.mark.parametrize("excess", [-2000, -1, 0, 1, 2000])
@pytest.mark.parametrize("silence", [1.0, 100.0, 100_000.0])
def test_an_endpoint_that_got_nothing_is_looked_at_again_soon_however_slow_it_was(excess, silence) -> None:
    agenda = Agenda()
    agenda.surveyed({1: NOW}, NOW)
    agenda.looked({1: full(100, excess)}, (), NOW)
    agenda.looked({1: full(99, excess)}, (), NOW + timedelta(seconds=1))  # one was settled
    later = NOW + timedelta(seconds=1 + silence)

    agenda.looked({1: full(99, excess)}, (), later)

    assert [] == agenda.wanted(later)
    assert [1] == agenda.wanted(later + timedelta(seconds=LATER, milliseconds=TICK))


def test_endpoints_whose_windows_are_full_are_looked_at_together() -> None:
    agenda = Agenda()
    agenda.surveyed(dict.fromkeys(range(20), NOW), NOW)
    for each in range(20):
        agenda.looked({each: full(100, 25)}, (), NOW + timedelta(milliseconds=each))
    for each in range(20):  # all settle fast, each at a moment of its own
        agenda.looked({each: full(0, 5)}, (), NOW + timedelta(milliseconds=20 + each))

    moments = {due.timestamp() for due in agenda._due.values()}

    assert len(moments) <= 3
    assert all(moment > (NOW + timedelta(milliseconds=20)).timestamp() for moment in moments)
