"""Where a connection to the broker leads, with the password and certificates that their files hold at that moment."""

import random
from pathlib import Path
from urllib.parse import quote

import pika
from pika.exceptions import AMQPConnectionError

from ops.runtime.tls import client_context
from ops.server_urls import BROKER_FILES, CA, CERT, KEY, PASSWORD_FILE, broker_place, broker_urls, read_password, split_files


class Brokers:
    """The brokers in a list of URLs, in turn, in an order of this connection's own, so that they share the connections."""

    def __init__(self, amqp_urls: str) -> None:
        self._urls = broker_urls(amqp_urls)
        random.shuffle(self._urls)
        self._left: tuple[str, int] | None = None

    def next(self) -> pika.URLParameters:
        """The next one. Raises `AMQPConnectionError` if one of its files cannot be read."""
        self._urls.append(self._urls.pop(0))
        return _parameters(self._urls[-1])

    def all(self) -> list[pika.URLParameters]:
        """Each of them once, in any order, but the one that was left comes last; for any thread. Raises as `next`."""
        found = [_parameters(url) for url in random.sample(self._urls, len(self._urls))]
        return sorted(found, key=lambda each: (each.host, each.port) == self._left)

    def leave(self, parameters: pika.ConnectionParameters) -> None:
        """Note that a connection with these was given up."""
        self._left = (parameters.host, parameters.port)


def _parameters(url: str) -> pika.URLParameters:
    plain, files = split_files(url, BROKER_FILES)
    try:
        if PASSWORD_FILE in files:
            user, _, place = plain.rpartition("@")
            plain = f"{user}:{quote(read_password(files[PASSWORD_FILE]), safe='')}@{place}"
        parameters = pika.URLParameters(plain)
        if files.keys() & {CA, CERT}:
            # Read each time, so that a renewed certificate is used without a restart.
            cert, ca, key = (Path(files[name]).read_text() if name in files else None for name in (CERT, CA, KEY))
            parameters.ssl_options = pika.SSLOptions(client_context(cert or key, ca, key), parameters.host)
    except (OSError, ValueError) as error:
        raise AMQPConnectionError(f"{broker_place(url)}: {error}") from None
    return parameters
