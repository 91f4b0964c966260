"""The classes of HTTP failures, as in a receipt's `error`, and who is at fault."""

import socket
import ssl
from typing import Final

from schemas.delivery import UNSENDABLE
from workers.net.dial import Refused
from workers.transports.http1 import BadAnswer
from workers.transports.http_connections import NotAUrl, NotConnected

Fault = tuple[str, str]  # class, detail

_PROXY_AUTHENTICATION: Final = 407  # only a proxy answers this

#: The class of a failure: that of the first type here that it is an instance of.
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

#: Failures that are the endpoint's or the operator's fault even when there is a proxy.
_NEVER_THE_PROXYS: Final = frozenset({"refused_address", "url", UNSENDABLE})


def refusal_of(status: int | None, *, proxied: bool) -> Fault | None:
    """The fault of an answer by its status; None for a 2xx."""
    if status is not None and 200 <= status < 300:
        return None
    if status is not None and 300 <= status < 400:
        return "redirect", f"answered {status}; redirects are not followed"
    if proxied and status == _PROXY_AUTHENTICATION:
        return "proxy", f"the proxy answered {status}"
    return "status", f"answered {status}"


def fault_of(error: Exception, status: int | None, seconds: float, *, with_proxy: bool) -> Fault:
    """The failure's class and the detail for the operator; `status` if the answer had begun.

    `with_proxy`: the attempt failed between us and the proxy, which was not reached or made no tunnel, even if because of the
    target: proxies' answers about unreachable targets differ too much to tell them apart.
    """
    kind = next((name for class_, name in _CLASSES if isinstance(error, class_)), "internal")
    detail = f"no whole answer within {seconds:g} s" if kind == "timeout" else f"{type(error).__name__}: {error}"[:500]
    if with_proxy and kind not in _NEVER_THE_PROXYS:
        return "proxy", f"the proxy: {detail}"
    return kind, detail if status is None else f"answered {status}, but its body did not end: {detail}"
