"""The main loop of the processes that work in rounds: what it does when a round fails, and while it rests."""

import threading
import time

import psycopg
import pytest

from workers.rounds import RECONNECT, Rounds


def test_a_round_that_fails_for_want_of_postgres_is_taken_again_and_any_other_failure_is_raised() -> None:
    stop, lost, seen = threading.Event(), [], []
    outcomes = [psycopg.OperationalError("connection refused"), None, ValueError("a bug")]

    def turn() -> float:
        seen.append(rounds.trouble)
        outcome = outcomes[len(seen) - 1]
        if outcome is not None:
            raise outcome
        return 0.0

    rounds = Rounds(stop, turn, lambda: lost.append(rounds.trouble))
    began = time.monotonic()
    with pytest.raises(ValueError, match="a bug"):
        rounds.run(lambda: None)
    assert seen == ["not connected yet", "Postgres: OperationalError", None]
    assert lost == ["Postgres: OperationalError"]
    assert time.monotonic() - began >= RECONNECT[0] / 2


def test_the_heart_beats_while_it_rests_and_a_stop_ends_the_rest() -> None:
    stop, beats = threading.Event(), []

    def beat() -> None:
        beats.append(time.monotonic())
        if len(beats) == 3:
            stop.set()

    Rounds(stop, lambda: 3600.0).run(beat)
    assert beats[2] - beats[0] < 10.0
