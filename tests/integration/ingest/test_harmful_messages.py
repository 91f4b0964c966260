"""Messages that hang, crash or starve the process that admits them: it ends, and its successor finds out which they were."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from ops.settings import environment
from support.waiting import wait_for
from workers.amqp.topology import IN, declare

#: Runs in every process that the test starts: harm according to a message's body, and shorter limits.
HARM = """
import collections, itertools, os, signal, sys, time
from pipeline import admit

drafts = admit._drafts
examined = "workers.ingest.admit_child" in sys.orig_argv
if not examined:
    from workers.ingest import examiner, watchdog
    examiner.LIFE, watchdog.Watch.__init__.__defaults__ = 0.8, (0.5, 3.0)

def harmed(message, source):
    if message.body == b"slow":
        until = time.process_time() + 60
        while time.process_time() < until:
            sum(range(100_000))
    elif message.body == b"hang":
        collections.deque(itertools.count(), maxlen=0)  # never leaves C code, and holds the GIL
    elif message.body == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif message.body == b"eat":  # the kernel kills the ingest process; the memory limit ends the examining child
        bytearray(4 << 30) if examined else os.kill(os.getpid(), signal.SIGKILL)
    elif message.body == b"fail":
        raise LookupError("nothing there")
    return drafts(message, source)

admit._drafts = harmed
"""


class Supervised:
    """An ingest process, restarted when it dies."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._stopping = threading.Event()
        self.ends: list[int] = []
        self._process = self._started()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "ops.cli", "ingest"], env=self._env)

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            if (code := self._process.poll()) is not None:
                self.ends.append(code)
                self._process = self._started()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def supervised(servers: Any, database: Any, tmp_path: Path) -> Iterator[Supervised]:
    (tmp_path / "sitecustomize.py").write_text(HARM)
    database.add_tenant("acme")
    database.add_tenant("other")
    for tenant in ("acme", "other"):
        database.add_source("orders", "amqp", tenant=tenant)
    found = Supervised(
        environment()
        | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [environment().get("PYTHONPATH")])]),
            "WAXSEAL_DATABASE_URL": database.worker_url,
            "WAXSEAL_AMQP_URL": servers.amqp_url,
            "WAXSEAL_KEYS": database.key,
        }
    )
    yield found
    found.close()


def publish(amqp_url: str, messages: list[tuple[str, bytes]]) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        declare(channel)
        channel.confirm_delivery()
        for number, (key, body) in enumerate(messages):
            properties = pika.BasicProperties(message_id=f"{key}-{number}", headers={"subject": "s"}, delivery_mode=2)
            channel.basic_publish(IN, key, body, properties, mandatory=True)


@pytest.mark.parametrize(
    ("body", "reason", "cause", "end"),
    [
        (b"slow", "too_slow", "s of CPU", None),
        (b"hang", "too_slow", "s of CPU", -signal.SIGPROF),
        (b"crash", "crashed", "SIGSEGV", -signal.SIGSEGV),
        (b"eat", "crashed", "needs more than 1536 MiB", -signal.SIGKILL),
        (b"fail", "poison", "nothing there", None),
    ],
)
def test_a_harmful_message_is_buried_under_its_own_cause_and_nobody_elses_waits(
    supervised, database, servers, body, reason, cause, end
) -> None:
    others = [("other.orders", b"fine")] * 20
    publish(servers.amqp_url, [*others, ("acme.orders", body), ("acme.orders", b"fine"), *others])

    wait_for(lambda: database.rows("SELECT count(*) FROM entry") == [(41,)] and database.rows("SELECT FROM dead_letter"), 40)

    ((stage, found, detail, kept),) = database.rows("SELECT stage, reason, detail, body FROM dead_letter")
    assert ("admit", reason, body) == (stage, found, kept)
    assert cause in detail
    assert ([] if end is None else [end]) == supervised.ends


def test_what_is_redelivered_is_examined_and_recorded_as_it_would_have_been(supervised, database, servers) -> None:
    """One harmful message ends the process; harmless ones of every form are redelivered together with it."""
    structured = b'{"specversion":"1.0","id":"ce","source":"/up","type":"t","subject":"s","data":{"n" :1.10}}'
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        declare(channel)
        for properties, each in (
            (pika.BasicProperties(content_type="application/cloudevents+json"), structured),
            (pika.BasicProperties(message_id="binary", headers={"subject": "s", "n": 1}), b"\x00\xff"),
            (pika.BasicProperties(message_id="refused"), b"no subject"),
            (pika.BasicProperties(message_id="crash", headers={"subject": "s"}), b"crash"),
        ):
            channel.basic_publish(IN, "acme.nothing" if each == b"no subject" else "acme.orders", each, properties)

    wait_for(lambda: len(database.rows("SELECT FROM dead_letter")) == 2 and len(database.rows("SELECT FROM entry")) == 2, 40)

    ids = "convert_from(attributes, 'UTF8')::json"
    assert [("binary", None, b"\x00\xff"), ("ce", "/up", b'{"n" :1.10}')] == database.rows(
        f"SELECT {ids}->>'id', {ids}->>'origin', body FROM content ORDER BY 1"
    )
    assert {"unknown_source", "crashed"} == {reason for (reason,) in database.rows("SELECT reason FROM dead_letter")}
