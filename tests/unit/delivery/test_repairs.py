"""How often the relay checks for what needs repair."""

from types import SimpleNamespace

import pytest

from workers.relay import repairs
from workers.relay.repairs import LEASES, LONGEST, Repairs


@pytest.mark.parametrize(
    ("took", "later"),
    [
        (0.001, LEASES),
        (0.1, 0.1 / repairs.SHARE),  # a check that costs much is made less often
        (60.0, LONGEST * LEASES),  # one that waited for Postgres puts off the next only so long
    ],
)
def test_a_check_is_repeated_the_less_often_the_longer_it_took_and_within_a_bound(monkeypatch, took, later) -> None:
    now, checked = [0.0], []
    monkeypatch.setattr(repairs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    due = Repairs(engine=None)  # type: ignore[arg-type]

    def expire() -> bool:
        checked.append(now[0])
        now[0] += took
        return False

    due._repairs = {expire: LEASES}
    due._next = {expire: 0.0}
    due.turn()
    for now[0] in (took + later - 0.01, took + later + 0.01):
        due.turn()

    assert [0.0, pytest.approx(took + later + 0.01)] == checked


def test_what_a_far_postgres_lets_a_check_wait_for_is_not_what_it_costs(monkeypatch) -> None:
    now, checked = [0.0], []
    monkeypatch.setattr(repairs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(repairs, "round_trip", lambda: 0.1)
    due = Repairs(engine=None)  # type: ignore[arg-type]

    def expire() -> bool:
        checked.append(now[0])
        now[0] += 0.3
        return False

    due._repairs = {expire: LEASES}
    due._next = {expire: 0.0}
    due.turn()
    now[0] = 0.3 + LEASES
    due.turn()

    assert [0.0, 0.3 + LEASES] == checked
