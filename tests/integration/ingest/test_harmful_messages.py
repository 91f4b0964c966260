"""Messages that hang, crash or starve the process that admits them: it ends, and its successor finds out which they were."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ops.settings import environment
from support.forked import Forked
from support.ingress import empty_inbox
from support.waiting import wait_for

#: Runs in what the test starts and in what that starts: harm according to a message's body, and shorter limits.
HARM = """
import collections, itertools, os, signal, sys, time
from pipeline import admit

drafts = admit._drafts
examined = "workers.ingest.admit_child" in sys.orig_argv
if not examined:
    from workers.ingest import examiner, watchdog
    examiner.LIFE, watchdog.TICK, watchdog.Watch.__init__.__defaults__ = 0.4, 0.1, (0.2, 1.5)

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
HARMFUL = ("slow", "hang", "crash", "eat", "fail")


class Supervised:
    """An ingest process, restarted when it dies."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._stopping = threading.Event()
        self.ends: list[int] = []
        self._process = self._started()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _started(self) -> Forked:
        return Forked("ingest", env=self._env, before=partial(exec, HARM, {}))

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


@pytest.fixture(scope="module")
def supervised(servers: Any, shared_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """Each harmful message has a source of its own: for a while one that did harm gets less time."""
    folder = tmp_path_factory.mktemp("harm")
    (folder / "sitecustomize.py").write_text(HARM)
    empty_inbox(servers.amqp_url)
    shared_database.add_tenant("acme")
    shared_database.add_tenant("other")
    shared_database.add_source("orders", "amqp", tenant="other")
    for name in ("orders", *HARMFUL):
        shared_database.add_source(name, "amqp")
    found = Supervised(
        environment()
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [environment().get("PYTHONPATH")])]),
            "WAXSEAL_DATABASE_URL": shared_database.worker_url,
            "WAXSEAL_AMQP_URL": servers.amqp_url,
            "WAXSEAL_KEYS": shared_database.key,
        }
    )
    yield found
    found.close()


@pytest.mark.parametrize(
    ("harm", "reason", "cause", "end"),
    [
        ("slow", "too_slow", "s of CPU", None),
        ("hang", "too_slow", "s of CPU", -signal.SIGPROF),
        ("crash", "crashed", "SIGSEGV", -signal.SIGSEGV),
        ("eat", "crashed", "needs more than 1536 MiB", -signal.SIGKILL),
        ("fail", "poison", "nothing there", None),
    ],
)
def test_a_harmful_message_is_buried_under_its_own_cause_and_nobody_elses_waits(
    supervised, shared_database, publish, harm, reason, cause, end
) -> None:
    def entries() -> list[tuple]:
        return shared_database.rows("SELECT FROM chain JOIN entry USING (chain_id) WHERE subject = %s", harm)

    def buried() -> list[tuple]:
        return shared_database.rows("SELECT stage, reason, detail, body FROM dead_letter WHERE source = %s", harm)

    supervised.ends.clear()
    others = [("other.orders", b"fine")] * 20
    for n, (key, body) in enumerate([*others, (f"acme.{harm}", harm.encode()), (f"acme.{harm}", b"fine"), *others]):
        publish(body, key, message_id=f"{harm}-{n}", headers={"subject": harm})

    wait_for(lambda: len(entries()) == 41 and buried(), 60)

    ((stage, found, detail, kept),) = buried()
    assert ("admit", reason, harm.encode()) == (stage, found, kept)
    assert cause in detail
    assert ([] if end is None else [end]) == supervised.ends


def test_what_is_redelivered_is_examined_and_recorded_as_it_would_have_been(supervised, shared_database, publish) -> None:
    """One harmful message ends the process; harmless ones of every form are redelivered together with it.

    What was refused just before that process ended may have two dead letters.
    """
    structured = b'{"specversion":"1.0","id":"ce","source":"/up","type":"t","subject":"s","data":{"n" :1.10}}'
    publish(structured, content_type="application/cloudevents+json")
    publish(b"\x00\xff", message_id="binary", headers={"subject": "s", "n": 1})
    publish(b"no subject", "acme.nothing", message_id="refused")
    publish(b"crash", message_id="crash", headers={"subject": "s"})

    buried = "SELECT DISTINCT reason FROM dead_letter WHERE source IN ('orders', 'nothing') ORDER BY reason"
    ids = "convert_from(attributes, 'UTF8')::json"
    entries = f"SELECT {ids}->>'id', {ids}->>'origin', body FROM content WHERE source = 'orders' AND subject = 's' ORDER BY 1"
    wait_for(lambda: len(shared_database.rows(buried)) == 2 and len(shared_database.rows(entries)) == 2, 60)

    assert [("binary", None, b"\x00\xff"), ("ce", "/up", b'{"n" :1.10}')] == shared_database.rows(entries)
    assert [("crashed",), ("unknown_source",)] == shared_database.rows(buried)
