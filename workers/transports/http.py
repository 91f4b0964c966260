"""Sends over HTTP, directly or through the deployment's proxy."""

from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from pipeline.delivery.addresses import literal, refused_host
from pipeline.delivery.signing import RANDOM_BYTES, headers, key_of
from pipeline.formats.timestamps import retry_after
from schemas.delivery import Delivery, Receipt, Wish
from schemas.endpoint import Endpoint
from workers.net.dial import Dialler, Refused
from workers.net.lease_deadline import Check, LeaseEnded, unleased
from workers.net.terms import Terms
from workers.net.timings import ATTEMPT_TIMES, AttemptTimes
from workers.net.tls_contexts import TlsContexts
from workers.transports.http1 import Answer, Unanswered
from workers.transports.http_connections import Connections, Destination, NotAUrl, destination
from workers.transports.http_errors import fault_of, refusal_of
from workers.transports.transport import Fresh, unsendable

KEPT: Final = 4 * 1024  # bytes of an answer that are recorded
READ: Final = 64 * 1024  # bytes of an answer that are read; the sender does not wait for more

_RETRY_AFTER, _DELIVERY = b"retry-after", b"webhook-delivery"
_WANTED: Final = frozenset({_RETRY_AFTER, _DELIVERY})
_WISHES: Final[dict[str, Wish]] = {"disable": "disable", "abort-message": "abort"}


class HttpSender:
    """One POST for each attempt, over kept-alive connections, without cookies or redirects.

    With a proxy, the proxy looks up names and must refuse private addresses that they lead to; the sender itself refuses only
    literal addresses.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._fresh = Fresh(RANDOM_BYTES)
        self._proxy = None if terms.proxy is None else destination(terms.proxy)
        self._contexts = TlsContexts()
        self._connections: Connections
        self._dialler: Dialler

    def open(self) -> None:
        """Make ready, on the running loop. TLS is verified with the system's trust store."""
        self._dialler = Dialler(self._terms.allowed if self._proxy is None else None)
        self._connections = Connections(self._dialler, self._proxy, self._contexts.common)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()
        await self._dialler.close()

    async def send(self, endpoint: Endpoint, delivery: Delivery, seconds: float, check: Check = unleased) -> Receipt:
        """POST the body; `seconds` over look-up, connection, TLS, headers and body together."""
        now, times = datetime.now(UTC), AttemptTimes(monotonic())
        deadline = times.began + seconds
        try:
            keys = [key_of(secret) for secret in endpoint.secrets]
            said = headers(delivery, keys, self._terms.user_agent, now, self._fresh())
            if endpoint.headers:
                _check(endpoint.headers)
                said = {**endpoint.headers, **said}
        except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt would fail alike
            return unsendable(error)
        answer = Answer(_WANTED, kept=KEPT, most=READ)
        try:
            await self._exchange(endpoint, said, delivery.body, times, answer, deadline, check)
            fault = refusal_of(answer.status, proxied=self._proxy is not None)
        except LeaseEnded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's result
            fault = fault_of(error, answer.status, seconds, with_proxy=times.with_proxy)
        times.answered = answer.began
        return self._receipt(now, times, answer, endpoint, *(fault or (None, None)))

    async def _exchange(
        self,
        endpoint: Endpoint,
        said: Mapping[str, str],
        body: bytes,
        times: AttemptTimes,
        answer: Answer,
        deadline: float,
        check: Check,
    ) -> None:
        to = self._checked(endpoint.url)
        plain = endpoint.client_cert is None and endpoint.ca is None
        tls = self._contexts.common if plain else await self._contexts.of(endpoint)
        head = self._head(to, said, len(body))
        check()
        connection = self._connections.kept(to, tls, times)
        if connection is not None:
            try:
                await connection.exchange(head, body, answer, deadline)
            except Unanswered:  # mostly the server had closed the idle connection; if not, the endpoint recognises the id
                times.forget()
            else:
                self._connections.give_back(to, tls, connection)
                return
        ATTEMPT_TIMES.set(times)
        connection = await self._connections.connect(to, tls, times, deadline)
        try:
            check()
        except LeaseEnded:
            connection.close()
            raise
        await connection.exchange(head, body, answer, deadline)
        self._connections.give_back(to, tls, connection)

    def _checked(self, url: str) -> Destination:
        """The destination of the URL. Raises `NotAUrl`, and `Refused` for a host that a proxy must not be asked for."""
        to = destination(url)
        if self._proxy is not None and (why := refused_host(to.host, self._terms.allowed)):
            raise Refused(f"{to.host} must not be asked for: {why}")
        return to

    def _head(self, to: Destination, said: Mapping[str, str], length: int) -> bytes:
        proxied = self._proxy is not None and not to.secure
        lines = [
            f"POST {f'http://{to.authority}{to.target}' if proxied else to.target} HTTP/1.1\r\nHost: {to.authority}",
            *(f"{name}: {value}" for name, value in said.items()),
        ]
        if to.authorization and "authorization" not in said:
            lines.append(f"authorization: {to.authorization}")
        if proxied and self._proxy is not None and self._proxy.authorization:
            lines.append(f"proxy-authorization: {self._proxy.authorization}")
        lines.append(f"content-length: {length}\r\n\r\n")
        return "\r\n".join(lines).encode("ascii")

    def _receipt(
        self, now: datetime, times: AttemptTimes, answer: Answer, endpoint: Endpoint, error: str | None, detail: str | None
    ) -> Receipt:
        ended = monotonic()
        answered = error != "proxy"
        hint = answer.fields.get(_RETRY_AFTER) if error and answered else None
        return Receipt(
            now,
            ended - times.began,
            answer.status,
            error,
            detail,
            retry_after(hint, datetime.now(UTC)) if hint else None,
            answer.head,
            times.reused,
            _WISHES.get(answer.fields.get(_DELIVERY, "").lower()) if answered and answer.fields else None,
            times.address,
            *times.phases(ended, named=not times.reused and self._is_named(endpoint.url)),
        )

    def _is_named(self, url: str) -> bool:
        """Whether the host that we connect to is a name, which has to be looked up."""
        try:
            return literal((self._proxy or destination(url)).host) is None
        except NotAUrl:
            return False


def _check(said: Mapping[str, str]) -> None:
    """Raise ValueError when a header holds a line break or another forbidden character (RFC 9110 §5.5)."""
    text = "".join(said) + "".join(said.values())
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a header holds a character that is not allowed")
