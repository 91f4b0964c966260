"""Every process is killed more than once, at random, while events pass through; then every event is checked."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ops.servers.ports import listens
from support.outages.senders import (
    Arrivals,
    assert_once_and_in_order,
    configuration,
    endpoint,
    first,
    publish_events,
    recorded,
    send_webhooks,
)
from support.stack import here, nothing_runs_on, stack_of
from support.waiting import wait_for

EVENTS = 2000  # sent; a tenth of them are repeats
SUBJECTS = 40
VICTIMS = ("ingest", "relay", "deliver", "ingress", "rabbitmq")
KILLS_OF_EACH = 2
PAUSE = 0.1  # seconds between two events of a sender while processes are killed
HELD_BACK = 25  # events of each sender, sent after the last kill


@pytest.fixture
def sink() -> Iterator[Arrivals]:
    with endpoint() as arrivals:
        yield arrivals


class System:
    """The running system, as described by its stack.json."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._killed: set[int] = set()

    def kill(self, name: str) -> bool:
        """Kills a process; returns whether it was still running."""
        try:
            for pid in stack_of(self.data)["pids"][name]:
                os.kill(pid, signal.SIGKILL)
                self._killed.add(pid)
        except ProcessLookupError:  # it ended by itself, and the supervisor has not yet started another
            return False
        return True

    def works(self, name: str) -> bool:
        """Whether the process runs and listens, and was not killed."""
        pids = stack_of(self.data)["pids"][name]
        return bool(pids) and self._killed.isdisjoint(pids) and listens(self._port(name))

    def _port(self, name: str) -> int:
        stack = stack_of(self.data)
        return urlsplit(stack["amqp_url"] if name == "rabbitmq" else stack["metrics"][name]).port or 0


@pytest.fixture
def system(data_folder: Path, sink: Arrivals) -> Iterator[System]:
    config = data_folder / "waxseal.yaml"
    config.write_text(configuration(sink.url))
    settings = {"WAXSEAL_LEASE": "10", "WAXSEAL_INGRESS_PORT": "0"}
    started = here("up", "--detach", "--config", str(config), "--data", str(data_folder), **settings)
    assert 0 == started.exit_code, started.stderr
    yield System(data_folder)
    stopped = here("down", "--data", str(data_folder))
    assert 0 == stopped.exit_code, stopped.stderr
    assert nothing_runs_on(data_folder)


def planned(channel: int) -> list[tuple[str, str]]:
    """The (id, subject) pairs that sender `channel` (0 to 7) sends, in order; a tenth of them are repeats."""
    numbers = range(channel, EVENTS * 9 // 10, 8)
    once = [(f"evt-{n}", f"subject-{channel}-{n % (SUBJECTS // 8)}") for n in numbers]
    return [pair for n, pair in enumerate(once) for pair in ([pair, pair] if n % 9 == 0 else [pair])]


def sendings(channel: int, killed: threading.Event) -> Iterator[tuple[str, str]]:
    """Yields what sender `channel` sends next, at an even rate while processes are killed, so that each kill meets traffic."""
    pairs = planned(channel)
    for left, pair in zip(range(len(pairs), 0, -1), pairs, strict=True):
        killed.wait(None if left <= HELD_BACK else PAUSE)
        yield pair


def send(system: System, channel: int, killed: threading.Event) -> None:
    """Four senders use HTTP, the others AMQP."""
    by, url = (send_webhooks, "ingress_url") if channel < 4 else (publish_events, "amqp_url")
    by(lambda: str(stack_of(system.data)[url]), sendings(channel, killed))


def kill_all(system: System) -> None:
    """Kills each victim `KILLS_OF_EACH` times, in random order: whichever works meanwhile, whatever state the others are in."""
    left = Counter(dict.fromkeys(VICTIMS, KILLS_OF_EACH))
    while +left:
        wait_for(lambda: any(system.works(name) for name in +left), 240)
        time.sleep(random.uniform(0.0, 1.5))
        if working := [name for name in +left if system.works(name)]:
            name = random.choice(working)
            left[name] -= system.kill(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_twice_or_out_of_order_whatever_is_killed(system: System, sink: Arrivals) -> None:
    killed = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send, system, n, killed) for n in range(8)]
        try:
            kill_all(system)
            assert [] == [sender.result() for sender in senders if sender.done()]  # none had finished before a kill
        finally:
            killed.set()
        for sender in senders:
            sender.result(240)
    expected = {f"evt-{n}" for n in range(EVENTS * 9 // 10)}

    with psycopg.connect(stack_of(system.data)["database_url"], autocommit=True) as conn:
        wait_for(lambda: first(conn, "SELECT count(*) FROM entry WHERE kind = 'event'") >= len(expected), 120)
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 120)
        ledger = recorded(conn)
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")

    assert len(expected) == len(ledger)
    assert_once_and_in_order([planned(channel) for channel in range(8)], ledger, sink.seen)
    verified = here("verify", "--data", str(system.data))
    assert 0 == verified.exit_code, verified.output
