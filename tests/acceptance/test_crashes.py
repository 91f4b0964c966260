"""Every process is killed more than once, at random, while events pass through; then every event is checked."""

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pika
import psycopg
import pytest
from pika.exceptions import AMQPError
from standardwebhooks import Webhook

from ops.servers.ports import listens
from support.stack import here, nothing_runs_on, stack_of
from support.waiting import wait_for

EVENTS = 2000  # sent; a tenth of them are repeats
SUBJECTS = 40
VICTIMS = ("ingest", "relay", "deliver", "ingress", "rabbitmq")
KILLS_OF_EACH = 2
PAUSE = 0.1  # seconds between two events of a sender while processes are killed
HELD_BACK = 25  # events of each sender, sent after the last kill
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

CONFIG = """
tenants: [{{name: acme}}]
sources:
  - {{tenant: acme, name: hooks, kind: standard-webhooks, secrets: ["{secret}"], subject: /subject}}
  - {{tenant: acme, name: orders, kind: amqp}}
endpoints:
  - {{tenant: acme, name: sink, url: "{url}", secrets: ["{secret}"], retry: [1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s], timeout: 10s}}
"""


@pytest.fixture
def sink() -> Iterator[tuple[str, Counter[str]]]:
    """An endpoint that counts requests by webhook-id."""
    seen: Counter[str] = Counter()

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Webhook(SECRET).verify(body, dict(self.headers.items()))
            seen[self.headers["webhook-id"]] += 1
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # waiting connections; with the default of five, most would time out on a busy machine

    server = Server(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", seen
    server.shutdown()
    server.server_close()


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
def system(data_folder: Path, sink) -> Iterator[System]:
    config = data_folder / "waxseal.yaml"
    config.write_text(CONFIG.format(url=sink[0], secret=SECRET))
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


def send_webhooks(system: System, channel: int, killed: threading.Event) -> None:
    for id, subject in sendings(channel, killed):
        body = json.dumps({"id": id, "subject": subject, "type": "order.paid"})
        while (status := post(system, id, body)) != 202:
            assert status in (None, 503)
            time.sleep(0.2)


def post(system: System, id: str, body: str) -> int | None:
    """The status of the ingress' answer; None without an answer."""
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(id, now, body),
        "content-type": "application/json",
    }
    request = Request(f"{stack_of(system.data)['ingress_url']}/in/acme/hooks", body.encode(), headers)
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None


def publish_events(system: System, channel: int, killed: threading.Event) -> None:
    sending = sendings(channel, killed)
    current = next(sending, None)
    while current is not None:
        with suppress(AMQPError, OSError):
            parameters = pika.URLParameters(stack_of(system.data)["amqp_url"])
            parameters.socket_timeout = parameters.stack_timeout = 5
            parameters.heartbeat = 0  # no thread reads heartbeats while a sender waits
            with pika.BlockingConnection(parameters) as connection:
                broker = connection.channel()
                broker.confirm_delivery()
                while current is not None:
                    id, subject = current
                    properties = pika.BasicProperties(
                        message_id=id, type="order.paid", headers={"subject": subject}, delivery_mode=2
                    )
                    broker.basic_publish(
                        "waxseal.in", "acme.orders", json.dumps({"id": id}).encode(), properties, mandatory=True
                    )
                    current = next(sending, None)
        time.sleep(0.2)


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
def test_nothing_is_lost_twice_or_out_of_order_whatever_is_killed(system: System, sink) -> None:
    _url, seen = sink
    killed = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send_webhooks if n < 4 else publish_events, system, n, killed) for n in range(8)]
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
        ids = """SELECT subject, convert_from(attributes, 'UTF8')::json->>'id' FROM content JOIN entry USING (chain_id, seq)
                 WHERE kind = 'event' ORDER BY chain_id, seq"""
        recorded = conn.execute(ids).fetchall()
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")

    assert len(expected) == len(recorded)
    assert expected == {id for _subject, id in recorded}
    assert expected == set(seen)
    order: dict[str, list[str]] = {}
    for subject, id in recorded:
        order.setdefault(subject, []).append(id)
    for channel in range(8):
        for subject, pairs in itertools.groupby(sorted(set(planned(channel)), key=_by_subject), key=lambda pair: pair[1]):
            assert [id for id, _subject in pairs] == order[subject]
    verified = here("verify", "--data", str(system.data))
    assert 0 == verified.exit_code, verified.output


def first(conn: psycopg.Connection, query: str) -> int:
    (number,) = conn.execute(query).fetchone() or (-1,)
    return number


def _by_subject(pair: tuple[str, str]) -> tuple[str, int]:
    return pair[1], int(pair[0].removeprefix("evt-"))
