"""Sends over SMTP: the event as a mail made from the endpoint's templates, to all recipients or none."""

import asyncio
import socket
import ssl
from contextlib import closing, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from aiosmtplib.response import SMTPResponse

from pipeline.delivery.addresses import literal
from pipeline.delivery.mail_message import bare, mail_message
from pipeline.delivery.template import Unrenderable, order
from schemas.config.smtp_target import SmtpTarget
from schemas.delivery import REFUSED, Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.dial import Dialler, Refused
from workers.net.lease_deadline import Check, LeaseEnded, unleased
from workers.net.terms import Terms
from workers.net.timings import ATTEMPT_TIMES, AttemptTimes
from workers.net.tls_contexts import TlsContexts
from workers.transports.template_renderer import Renderer
from workers.transports.transport import said, unsendable

KEPT: Final = 4 * 1024  # bytes of an answer that are recorded

_VERDICTS: Final = (SMTPSenderRefused, SMTPRecipientRefused, SMTPDataError)  # on the mail itself

Fault = tuple[str, str]  # class, detail


class _Unreachable(OSError):
    """No address of the server took the connection."""


class SmtpSender:
    """One connection per mail. If the server refuses any recipient, the mail is not sent, so that no recipient gets it twice.

    A 5yz for the mail ends its delivery; any other failure, a wrong password included, is retried.
    """

    def __init__(self, terms: Terms) -> None:
        self._dialler = Dialler(terms.allowed)
        self._contexts = TlsContexts()
        self._renderer: Renderer

    def open(self) -> None:
        """Remember the running loop."""
        self._renderer = Renderer()

    async def close(self) -> None:
        """End the process that renders."""
        self._renderer.close()
        await self._dialler.close()

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Receipt:
        """Send one mail; delivered when the server has answered 250 to all of it."""
        target = endpoint.target
        assert isinstance(target, SmtpTarget)
        now, began = datetime.now(UTC), monotonic()
        times, answer = AttemptTimes(began), None
        try:
            async with asyncio.timeout(seconds):
                asked = order(target, delivery)
                rendered = await self._renderer.render(asked)
                try:
                    mail = mail_message(target, delivery, asked["event"]["id"], rendered, now)
                except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt would fail alike
                    return unsendable(error)
                times.began = monotonic()
                ATTEMPT_TIMES.set(times)
                answer = await self._hand_over(endpoint, target, mail, began + seconds, check)
            fault = None
        except LeaseEnded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's result
            fault, answer = fault_of(error, seconds)
        return self._receipt(now, began, times, target, answer, fault)

    async def _hand_over(self, endpoint: Endpoint, target: SmtpTarget, mail: bytes, until: float, check: Check) -> SMTPResponse:
        times = ATTEMPT_TIMES.get()
        assert times is not None
        context = await self._contexts.of(endpoint)
        # On leaving, a transport that has taken over the socket keeps it open until its buffer is written.
        with closing(await self._connected(target, until)) as connected:
            client = _client(target, connected, context)
            try:
                await client.connect()
                times.ready = monotonic()
                await client.mail(bare(target.sender))
                for recipient in target.to:
                    await client.rcpt(bare(recipient))
                check()
                answer = await client.data(mail)
                times.answered = monotonic()
                return answer
            finally:
                _leave(client)

    async def _connected(self, target: SmtpTarget, until: float) -> socket.socket:
        try:
            return await self._dialler.dial(target.host, target.port, until - monotonic())
        except (Refused, socket.gaierror, TimeoutError):
            raise
        except OSError as error:
            raise _Unreachable(str(error)) from error

    def _receipt(
        self,
        now: datetime,
        began: float,
        times: AttemptTimes,
        target: SmtpTarget,
        answer: SMTPResponse | None,
        fault: Fault | None,
    ) -> Receipt:
        ended = monotonic()
        error, detail = fault or (None, None)
        response = b"" if answer is None else f"{answer.code} {answer.message}".encode(errors="replace")[:KEPT]
        return Receipt(
            now,
            ended - began,
            answer.code if answer is not None and answer.code > 0 else None,
            error,
            detail,
            None,
            response,
            None if times.ready is None else False,
            None,
            times.address,
            *times.phases(ended, named=literal(target.host) is None),
        )


def fault_of(error: Exception, seconds: float) -> tuple[Fault, SMTPResponse | None]:
    """The failure's class, the detail for the operator, and the server's answer if there was one."""
    answer = SMTPResponse(error.code, error.message) if isinstance(error, SMTPResponseException) else None
    if isinstance(error, TimeoutError):
        return ("timeout", f"not taken within {seconds:g} s"), None
    if isinstance(error, _VERDICTS):
        return (REFUSED if 500 <= error.code < 600 else "deferred", said(error)), answer
    cause = error.__cause__ if isinstance(error, SMTPConnectError) and error.__cause__ is not None else error
    return (_class(cause), said(cause)), answer


def _class(error: BaseException) -> str:
    for class_, name in (
        (SMTPAuthenticationError, "auth"),
        (SMTPServerDisconnected, "reset"),
        (SMTPException, "protocol"),
        (Unrenderable, "template"),
        (Refused, "refused_address"),
        (socket.gaierror, "dns"),
        (_Unreachable, "connect"),
        (ssl.SSLError, "tls"),
        (OSError, "reset"),
    ):
        if isinstance(error, class_):
            return name
    return "internal"


def _client(target: SmtpTarget, connected: socket.socket, context: ssl.SSLContext) -> SMTP:
    return SMTP(
        hostname=target.host.rstrip("."),
        sock=connected,
        use_tls=target.security == "tls",
        start_tls=target.security == "starttls",
        tls_context=context,
        username=target.username,
        password=target.password,
        local_hostname=_own_name(connected),
        timeout=None,  # the caller keeps one deadline for the whole attempt
    )


def _leave(client: SMTP) -> None:
    """Send QUIT without waiting for the reply: the server's answer to the mail is final."""
    with suppress(SMTPException, RuntimeError):
        if client.protocol is not None:
            client.protocol.write(b"QUIT\r\n")
    client.close()


def _own_name(connected: socket.socket) -> str:
    """The name for EHLO: a qualified host name if there is one, else an address literal (RFC 5321 §4.1.3)."""
    name, address = socket.gethostname(), str(connected.getsockname()[0]).partition("%")[0]
    return name if "." in name else f"[IPv6:{address}]" if ":" in address else f"[{address}]"
