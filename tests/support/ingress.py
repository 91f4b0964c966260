"""A real ingress in a thread of the test, and a client that returns raw answers."""

import base64
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from tempfile import TemporaryDirectory
from typing import Any

import pika

from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine
from ops.runtime.vault import Vault
from schemas.message import Message
from support.waiting import wait_for
from workers.amqp.publisher import Publisher
from workers.amqp.topology import INBOX, RECEIVED, declare
from workers.ingress.listener import ClientBounds, Listener
from workers.ingress.worker import make_route
from workers.live_catalog import CatalogWatch

KEY = b"k" * 24
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Ingress:
    port: int
    server: Listener
    publisher: Publisher
    catalog: CatalogWatch

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, dict(headers or {}))
        answer = read_answer(connection.getresponse())
        connection.close()
        return answer

    def post(self, source: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("POST", f"/in/acme/{source}", body, headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, *pieces: bytes) -> bytes:
        """Sends the pieces; returns everything received until the ingress closes or 30 s pass in silence."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_all(connection)

    @property
    def ready(self) -> bool:
        return self.ask("GET", "/readyz").status == 200


def read_answer(response: HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def parsed(raw: bytes) -> Answer:
    """The one answer in `raw`."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(body) == int(headers["content-length"])
    return Answer(int(status.split()[1]), headers, body)


@contextmanager
def running(
    database_url: str,
    vault: Vault,
    amqp_url: str,
    *,
    confirm_timeout: float = 5.0,
    most: int = 2000,
    per_address: int = 2000,
    blobs: str | None = None,
) -> Iterator[Ingress]:
    """An ingress, possibly not ready yet when the block begins. Its blob store is deleted afterwards, unless one is given."""
    temporary = TemporaryDirectory()
    engine = make_engine(database_url, pool_size=1)
    catalog = CatalogWatch(engine, vault)
    publisher = Publisher(amqp_url, "test ingress", timeout=confirm_timeout)
    route = make_route(catalog, publisher, Blobs(blobs or temporary.name, 2.0))
    server = Listener(route, "127.0.0.1", 0, ClientBounds(per_address, grace=1.0, most=most))
    thread = threading.Thread(target=server.run, args=(publisher.start, publisher.close), name="ingress")
    catalog.start()
    thread.start()
    try:
        wait_for(lambda: server.port is not None)
        assert server.port is not None
        yield Ingress(server.port, server, publisher, catalog)
    finally:
        server.stop()
        thread.join()
        catalog.stop()
        engine.dispose()
        temporary.cleanup()


def signed(body: bytes, *, name: str = "msg_1", sent: int | None = None, key: bytes = KEY) -> dict[str, str]:
    """The headers of a Standard Webhook."""
    at = int(time.time()) if sent is None else sent
    mac = base64.b64encode(hmac.digest(key, f"{name}.{at}.".encode() + body, "sha256")).decode()
    return {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": f"v1,{mac}"}


class Inbox:
    """The queue that the ingress publishes to, read over one connection."""

    def __init__(self, amqp_url: str) -> None:
        parameters = pika.URLParameters(amqp_url)
        parameters.heartbeat = 0  # tests use it now and then only
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        declare(self._channel)

    def drain(self) -> list[tuple[pika.BasicProperties, Message]]:
        """Empties it; returns the properties of each message, and the message as the ingest worker reads it."""
        taken = []
        while True:
            method, properties, body = self._channel.basic_get(INBOX, auto_ack=True)
            if method is None or properties is None or body is None:
                return taken
            message = Message(
                method.routing_key,
                body,
                properties.content_type,
                properties.content_encoding,
                properties.headers,
                properties.message_id,
                trusted=method.exchange == RECEIVED,
            )
            taken.append((properties, message))

    def empty(self) -> None:
        self._channel.queue_purge(INBOX)

    def close(self) -> None:
        self._connection.close()


def empty_inbox(amqp_url: str) -> None:
    with closing(Inbox(amqp_url)) as inbox:
        inbox.empty()


def drain(amqp_url: str) -> list[tuple[pika.BasicProperties, Message]]:
    """Empties the inbox over a connection of its own; gives what `Inbox.drain` does."""
    with closing(Inbox(amqp_url)) as inbox:
        return inbox.drain()
