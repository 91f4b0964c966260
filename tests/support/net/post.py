"""A real SMTP server (aiosmtpd) with scripted answers that keeps what it accepted."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from support.net.loop_thread import LoopThread


class Post:
    """Accepts mails. A recipient `550@…` is answered with that code; `answers` are for DATA, one after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.taken: list[Envelope] = []
        self.sessions: list[Session] = []
        self.port = 0
        self.address = ""

    @property
    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(each.original_content or b"", policy=default) for each in self.taken]  # type: ignore[arg-type]

    async def handle_RCPT(self, _server: SMTP, session: Session, envelope: Envelope, address: str, _options: list) -> str:  # noqa: N802
        self.sessions.append(session)
        code = address.partition("@")[0]
        if code.isdigit():
            return f"{code} no such luck"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self.answers.pop(0) if self.answers else "250 2.0.0 queued as 12345"
        if answer.startswith("250"):
            self.taken.append(envelope)
        return answer


def authenticator(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
    right = isinstance(given, LoginPassword) and (given.login, given.password) == (b"us", b"s3cret")
    return AuthResult(success=right, handled=False)


@contextmanager
def post_office(post: Post, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[Post]:
    """The server on a port of the loopback address while the block runs; with `tls`, TLS from the first byte."""
    thread = LoopThread()
    loop = thread.loop
    server = thread.do(loop.create_server(lambda: SMTP(post, loop=loop, **options), "127.0.0.1", 0, ssl=tls))
    post.port = server.sockets[0].getsockname()[1]
    try:
        yield post
    finally:
        thread.stop(server)
