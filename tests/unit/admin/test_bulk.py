"""Acts on many rows: their rate, and their options on the command line."""

import os
import signal

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.admin.bulk import MOST, Pace, uninterrupted
from ops.cli.terminal.confirm import ActTerms, Rate
from ops.servers.accounts import login_name


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@given(st.floats(0.01, 1e6), st.integers(1, 50), st.floats(0, 1))
def test_no_more_is_done_than_the_rate_allows(rate: float, chunks: int, work: float) -> None:
    clock = Clock()
    pace = Pace(rate, clock, clock.sleep)
    done = 0
    for _ in range(chunks):
        clock.now += work
        done += pace.chunk
        pace.keep(done)

        assert clock.now - 100.0 >= done / rate - 1e-6


def test_what_is_slower_than_its_rate_does_not_wait() -> None:
    clock = Clock()
    pace = Pace(100, clock, clock.sleep)
    clock.now += 1.0
    pace.keep(99)
    pace.keep(150)

    assert [0.5] == [round(each, 6) for each in clock.slept]


@pytest.mark.parametrize(("rate", "chunk"), [(0.1, 1), (3, 1), (8, 2), (500, 125), (1e6, MOST)])
def test_a_chunk_is_a_quarter_of_a_second_of_the_rate_within_bounds(rate: float, chunk: int) -> None:
    assert chunk == Pace(rate).chunk


@pytest.mark.parametrize(("text", "rate"), [("500/s", 500), ("500", 500), ("30/m", 0.5), ("3600/h", 1), ("0.5/s", 0.5)])
def test_a_rate_is_per_second_minute_or_hour(text: str, rate: float) -> None:
    assert rate == Rate().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "0/s", "0", "-1", "5/d", "fast", "1e3", "٣/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no rate"):
        Rate().convert(text, None, None)


def test_without_a_terminal_nothing_is_agreed_to_but_by_yes() -> None:
    ActTerms(yes=True, rate=1, who="ada", as_json=False).confirm("do it")
    with click.Context(click.Command("x")), pytest.raises(click.UsageError, match="to do it, add --yes"):
        ActTerms(yes=False, rate=1, who="ada", as_json=False).confirm("do it")


def test_who_acts_is_the_login_or_else_the_account_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getlogin", lambda: "ada")
    assert "ada" == login_name()

    monkeypatch.undo()
    monkeypatch.setenv("LOGNAME", "forged")
    assert "forged" != login_name()


def test_ctrl_c_waits_for_the_end_of_a_chunk() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("counted")

    assert ["counted"] == done
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was delayed")
