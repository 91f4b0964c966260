"""What a failure of HTTP is called, and whose it is. The words are those of a receipt's `error`."""

import socket
import ssl
from typing import Final

from schemas.delivery import UNSENDABLE
from workers.net.dial import Refused
from workers.transports.http1 import BadAnswer
from workers.transports.http_connections import NotAUrl, NotConnected

Fault = tuple[str, str]  # class, detail

_PROXY_AUTHENTICATION: Final = 407  # only a proxy says so

#: The class of a failure, by the first of these that it is an instance of.
_CLASSES: Final = (
    (TimeoutError, "timeout"),
    (Refused, "refused_address"),
    (socket.gaierror, "dns"),
    (ssl.SSLError, "tls"),
    (NotAUrl, "url"),
    (NotConnected, "connect"),
    (OSError, "reset"),
    (BadAnswer, "protocol"),
    (ValueError, UNSENDABLE),
)

#: Failures that are the endpoint's or the operator's even when there is a proxy.
_NEVER_THE_PROXYS: Final = frozenset({"refused_address", "url", UNSENDABLE})


def refusal_of(status: int | None, *, proxied: bool) -> Fault | None:
    """What is wrong with an answer; None with a 2xx."""
    if status is not None and 200 <= status < 300:
        return None
    if status is not None and 300 <= status < 400:
        return "redirect", f"answered {status}; redirects are not followed"
    if proxied and status == _PROXY_AUTHENTICATION:
        return "proxy", f"the proxy answered {status}"
    return "status", f"answered {status}"


def fault_of(error: Exception, status: int | None, seconds: float, *, with_proxy: bool) -> Fault:
    """The failure's class and what an operator should read; `status` if the answer had begun.

    `with_proxy` says that the way ended between us and the proxy: it was not reached, or made no tunnel, be it for the target's
    sake. What a proxy says of a target that it does not reach differs too much to be told apart.
    """
    kind = next((name for class_, name in _CLASSES if isinstance(error, class_)), "internal")
    detail = f"no whole answer within {seconds:g} s" if kind == "timeout" else f"{type(error).__name__}: {error}"[:500]
    if with_proxy and kind not in _NEVER_THE_PROXYS:
        return "proxy", f"the proxy: {detail}"
    return kind, detail if status is None else f"answered {status}, but its body did not end: {detail}"
