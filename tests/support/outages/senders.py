"""Senders over HTTP and AMQP that repeat an event until it is accepted, an endpoint that counts, and what was recorded."""

import itertools
import json
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pika
import psycopg
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, NackError
from standardwebhooks import Webhook

from support.sending import SECRET

CONFIG = """
tenants: [{{name: acme}}]
sources:
  - {{tenant: acme, name: hooks, kind: standard-webhooks, secrets: ["{secret}"], subject: /subject}}
  - {{tenant: acme, name: orders, kind: amqp}}
endpoints:
  - {{tenant: acme, name: sink, url: "{url}", secrets: ["{secret}"], retry: [1s, 1s, 1s, 1s, 1s, 1s, 1s, 1s], timeout: 10s}}
"""

NACKS: Final = 5  # of one message, after which a sender connects again

Event = tuple[str, str]
"""Its id and its subject."""


class Arrivals:
    """What an endpoint received: how often each id, and when first."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: Counter[str] = Counter()
        self.first: dict[str, float] = {}  # monotonic

    def note(self, id: str) -> None:
        self.first.setdefault(id, time.monotonic())
        self.seen[id] += 1


@contextmanager
def endpoint() -> Iterator[Arrivals]:
    """An endpoint that checks signatures and counts requests by the id of their event."""
    arrivals = Arrivals()

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with suppress(json.JSONDecodeError):  # a mail, whose signature has been verified by then
                Webhook(SECRET).verify(body, dict(self.headers.items()))
            arrivals.note(self.headers["ce-id"])
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # waiting connections; with the default of five, most would time out on a busy machine

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a sender that was killed or cut off
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    arrivals.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield arrivals
    finally:
        server.shutdown()
        server.server_close()


def configuration(url: str) -> str:
    """Of one tenant, a source of each kind, and the endpoint."""
    return CONFIG.format(url=url, secret=SECRET)


def send_webhooks(
    url: Callable[[], str], events: Iterable[Event], accepted: Callable[[str], object] = lambda _id: None
) -> None:
    """Posts each event to the ingress at `url` until it is accepted, one after the other."""
    for id, subject in events:
        body = json.dumps({"id": id, "subject": subject, "type": "order.paid"})
        while (status := post(url(), id, body)) != 202:
            assert status in (None, 503), status
            time.sleep(0.2)
        accepted(id)


def post(url: str, id: str, body: str) -> int | None:
    """The status of the ingress' answer; None without an answer."""
    now = datetime.now(UTC).replace(microsecond=0)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(id, now, body),
        "content-type": "application/json",
    }
    request = Request(f"{url}/in/acme/hooks", body.encode(), headers)
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None


def publish_events(
    url: Callable[[], str],
    events: Iterable[Event],
    accepted: Callable[[str], object] = lambda _id: None,
    patience: float | None = None,
) -> None:
    """Publishes each event with a confirm, one after the other; connects to the next `url` when a connection is lost.

    `patience`: seconds for a confirm, after which the connection is given up: a frozen broker does not end it.
    """
    sending = iter(events)
    current = next(sending, None)
    while current is not None:
        with suppress(AMQPError, AMQPConnectorException, OSError):  # the second: no handshake
            parameters = pika.URLParameters(url())
            parameters.socket_timeout = parameters.stack_timeout = 5
            parameters.heartbeat = 0  # no thread reads heartbeats while a sender waits
            connection = pika.BlockingConnection(parameters)
            try:
                broker = connection.channel()
                broker.confirm_delivery()
                while current is not None:
                    _publish(broker, *current, patience)
                    accepted(current[0])
                    current = next(sending, None)
            finally:
                _abandon(connection)
        time.sleep(0.2)


def _publish(broker: pika.adapters.blocking_connection.BlockingChannel, id: str, subject: str, patience: float | None) -> None:
    properties = pika.BasicProperties(message_id=id, type="order.paid", headers={"subject": subject}, delivery_mode=2)
    loop = broker.connection._impl  # a timer of the connection itself would not be heard while a confirm is awaited
    timer = None if patience is None else loop._adapter_call_later(patience, _give_up)
    for nacks in itertools.count(1):
        try:
            broker.basic_publish("waxseal.in", "acme.orders", json.dumps({"id": id}).encode(), properties, mandatory=True)
            break
        except NackError:  # a queue without a leader; the channel may be as good as before, or for ever without one
            if nacks == NACKS:
                raise
            time.sleep(0.1)
    if timer is not None:
        loop._adapter_remove_timeout(timer)


def _give_up() -> None:
    raise TimeoutError("no confirm")


def _abandon(connection: pika.BlockingConnection) -> None:
    """Closes the connection without asking a broker that may be frozen."""
    transport = connection._impl._transport  # pika has no way of its own to close a connection at once
    if transport is not None:
        transport.abort()


def recorded(conn: psycopg.Connection) -> list[Event]:
    """What the ledger holds, chain by chain, in its order."""
    ids = """SELECT convert_from(attributes, 'UTF8')::json->>'id', subject FROM content JOIN entry USING (chain_id, seq)
             WHERE kind = 'event' ORDER BY chain_id, seq"""
    return [(id, subject) for id, subject in conn.execute(ids).fetchall()]


def assert_once_and_in_order(sent: Iterable[Iterable[Event]], ledger: Iterable[Event], seen: Iterable[str]) -> None:
    """Every event that a sender sent is recorded once and was delivered, and each subject has them in the sender's order."""
    ledger = list(ledger)
    expected: dict[str, list[str]] = defaultdict(list)
    for events in sent:
        for id, subject in dict.fromkeys(events):
            expected[subject].append(id)
    found: dict[str, list[str]] = defaultdict(list)
    for id, subject in ledger:
        found[subject].append(id)
    ids = {id for each in expected.values() for id in each}
    assert len(ids) == len(ledger)
    differ = {subject: _first_difference(ids, found[subject]) for subject, ids in expected.items() if ids != found[subject]}
    assert {} == differ, differ
    assert ids == set(seen)


def _first_difference(expected: list[str], found: list[str]) -> tuple[list[str], list[str]]:
    """What differs first, with what comes next."""
    at = next(number for number, (one, other) in enumerate(itertools.zip_longest(expected, found)) if one != other)
    return expected[at : at + 9], found[at : at + 9]


def first(conn: psycopg.Connection, query: str) -> int:
    (number,) = conn.execute(query).fetchone() or (-1,)
    return number
