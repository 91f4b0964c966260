"""What a connection to the broker presents as its certificate, by the files of its URL."""

import ssl
from pathlib import Path

import pytest

from support.net.tls import Authority
from workers.amqp.brokers import Brokers

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("worker")
CERT, _, KEY = PAIR.partition("-----BEGIN PRIVATE KEY-----")
FILES = {"ca.pem": AUTHORITY.ca, "cert.pem": CERT, "key.pem": f"-----BEGIN PRIVATE KEY-----{KEY}", "pair.pem": PAIR}


@pytest.mark.parametrize(
    ("certfile", "keyfile"),
    [("cert.pem", "key.pem"), ("pair.pem", "pair.pem"), ("cert.pem", "pair.pem"), ("pair.pem", None), (None, "pair.pem")],
)
def test_the_certificate_is_presented_once(certfile: str | None, keyfile: str | None, tmp_path: Path) -> None:
    """RabbitMQ with Erlang 27 refuses, as of an unknown authority, a certificate that is followed by itself."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    given = {"cacertfile": "ca.pem", "certfile": certfile, "keyfile": keyfile}
    query = "&".join(f"{parameter}={tmp_path}/{name}" for parameter, name in given.items() if name is not None)
    parameters = Brokers(f"amqps://worker:secret@localhost/?{query}").next()
    assert parameters.ssl_options is not None

    chain = presented(parameters.ssl_options.context)
    assert [ssl.PEM_cert_to_DER_cert(CERT), ssl.PEM_cert_to_DER_cert(AUTHORITY.ca)] == chain


def presented(context: ssl.SSLContext) -> list[bytes]:
    """The certificates that a server gets from a client of this context."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = AUTHORITY.server("localhost", clients=True).wrap_bio(to_server, to_client, server_side=True)
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    waiting = [client, server]
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    chain = server._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # public since Python 3.13
    return [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain]
