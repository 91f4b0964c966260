import os
import signal
import socket
from collections.abc import Iterator

import pytest
import structlog

from ops.runtime import gc_tuning, log
from ops.runtime.connection_name import CONNECTION_NAME
from ops.settings import Misconfigured, Settings
from workers.process import Process

SETTINGS = Settings(database_url="postgresql://waxseal@127.0.0.1:1/waxseal")


class Thing:
    def __init__(self, name: str, closed: list[str]) -> None:
        self._name = name
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self._name)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves signals, logging and garbage collection of the test process unchanged."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(log, "configure", lambda *_: None)
    monkeypatch.setattr(gc_tuning, "tune", lambda: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def logs(monkeypatch) -> list:
    """What the process logs, whatever other tests have configured."""
    capture = structlog.testing.LogCapture()
    monkeypatch.setattr("workers.process._log", structlog.wrap_logger(None, processors=[capture]))
    return capture.entries


def test_what_was_opened_is_closed_in_reverse_order(logs) -> None:
    closed: list[str] = []
    with Process(SETTINGS, "relay", "database_url") as process:
        process.closing(Thing("first", closed))
        process.at_end(lambda: closed.append("second"))
        process.closing(Thing("third", closed))
        process.started(metrics_port=1)

    assert ["third", "second", "first"] == closed
    assert ["started", "stopped"] == [each["event"] for each in logs]
    assert 0 == process.status


def test_what_was_opened_is_closed_when_the_work_fails_or_one_of_them_does(logs) -> None:
    closed: list[str] = []
    with pytest.raises(RuntimeError, match="the work"), Process(SETTINGS, "relay") as process:
        process.closing(Thing("first", closed))
        process.closing(Thing("second", closed))
        raise RuntimeError("the work")
    with pytest.raises(ZeroDivisionError), Process(SETTINGS, "relay") as process:
        process.closing(Thing("third", closed))
        process.at_end(lambda: 1 // 0)

    assert ["second", "first", "third"] == closed
    assert [] == logs


def test_a_process_without_a_setting_that_it_needs_sets_up_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(Misconfigured, match="WAXSEAL_AMQP_URL"):
        Process(SETTINGS, "relay", "database_url", "amqp_url")
    assert before == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_work_however_early_it_comes(number: signal.Signals) -> None:
    calls: list[str] = []
    with Process(SETTINGS, "relay") as process:
        process.at_signal(lambda: calls.append("early"))
        assert not process.stop.is_set()
        signal.raise_signal(number)
        process.at_signal(lambda: calls.append("late"))

        assert process.stop.is_set()
        assert ["early", "late"] == calls


def test_a_process_that_failed_does_not_say_that_it_was_stopped(logs) -> None:
    with Process(SETTINGS, "relay") as process:
        process.status = 1

    assert [] == logs


def test_connections_say_which_process_they_are_of(logs, monkeypatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1")
    with Process(SETTINGS, "relay"):
        assert f"waxseal relay {os.getpid()}@node-1" == CONNECTION_NAME.text

    assert "waxseal" == CONNECTION_NAME.text
