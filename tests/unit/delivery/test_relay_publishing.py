"""What the relay makes of the results of its publishing threads."""

import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import structlog

from schemas.delivery import Claim
from workers.relay.worker import Relay

AWAY = psycopg.OperationalError("the server closed the connection unexpectedly")
FAULT = ValueError("a fault of the relay itself")
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


def relay(*, ready: str | None = None, publish_all: Any = None) -> Relay:
    publisher: Any = SimpleNamespace(ready=lambda: ready, publish_all=publish_all)
    engine: Any = None
    return Relay(engine, publisher, lease=60.0, max_leased=100)


def ended(result: bool | Exception) -> "Future[bool]":
    future: Future[bool] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


@pytest.mark.parametrize(
    ("ready", "results"),
    [
        ("the broker is away", [FAULT]),
        (None, [False, FAULT]),
        (None, [FAULT, False]),
        ("the broker is away", [AWAY, False, FAULT]),
    ],
)
def test_a_fault_of_a_publishing_thread_is_raised_whatever_else_failed(ready, results) -> None:
    one = relay(ready=ready)
    one._publishing = {ended(result) for result in results}

    with pytest.raises(ValueError, match="itself"):
        one._confirmed()
    assert (one._confirmed() > 0) == bool(ready)  # it pauses only for the broker


def test_claims_that_could_not_be_published_nor_handed_back_are_logged(monkeypatch) -> None:
    logs = structlog.testing.LogCapture()
    monkeypatch.setattr("workers.relay.worker._log", structlog.wrap_logger(None, processors=[logs]))

    def publish_all(*_: object) -> None:
        raise FAULT

    with pytest.raises(ValueError, match="itself"):
        relay(publish_all=publish_all)._publish([Claim(1, 2, 3)], uuid4(), UNTIL)

    assert [("claims_left_to_their_lease", 1)] == [(each["event"], each["deliveries"]) for each in logs.entries]


def test_far_from_postgres_repairs_keep_no_claim_waiting_and_their_faults_are_raised(monkeypatch) -> None:
    monkeypatch.setattr("workers.relay.worker.round_trip", lambda: 0.1)
    one, waits = relay(), threading.Event()

    def repair() -> None:
        assert waits.wait(20)
        raise FAULT

    one._repairs = SimpleNamespace(turn=repair)  # type: ignore[assignment]
    one._repair()
    one._repair()  # the first still runs
    waits.set()
    one._pool.shutdown()

    with pytest.raises(ValueError, match="itself"):
        one._repair()
