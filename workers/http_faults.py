"""What a failure of HTTP is called, and whose it is. The words are those of a receipt's `error`."""

import ssl
from typing import Final

import aiohttp
from yarl import URL

from pipeline.deliver import UNSENDABLE
from workers.course import Course
from workers.dialling import Refused

Fault = tuple[str, str]  # class, detail

_PROXY_AUTHENTICATION: Final = 407  # only a proxy says so

#: The class of a failure, by the first of these that it is an instance of.
_CLASSES: Final = (
    (TimeoutError, "timeout"),
    (Refused, "refused_address"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ServerFingerprintMismatch, "tls"),
    (ssl.SSLError, "tls"),
    (aiohttp.InvalidURL, "url"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ClientConnectionError, "reset"),
    (aiohttp.ClientPayloadError, "reset"),
    (OSError, "reset"),
    (aiohttp.ClientResponseError, "protocol"),
    (ValueError, UNSENDABLE),
)


def refusal_of(status: int | None, *, proxied: bool) -> Fault | None:
    """What is wrong with an answer; None with a 2xx."""
    if status is not None and 200 <= status < 300:
        return None
    if status is not None and 300 <= status < 400:
        return "redirect", f"answered {status}; redirects are not followed"
    if proxied and status == _PROXY_AUTHENTICATION:
        return "proxy", f"the proxy answered {status}"
    return "status", f"answered {status}"


def fault_of(error: Exception, status: int | None, seconds: float) -> Fault:
    """The failure's class and what an operator should read; `status` if the answer had begun."""
    cause = getattr(error, "os_error", None)
    cause = cause if isinstance(cause, Refused) else error
    kind = next((name for class_, name in _CLASSES if isinstance(cause, class_)), "internal")
    detail = f"no whole answer within {seconds:g} s" if kind == "timeout" else _detail(cause)
    return kind, detail if status is None else f"answered {status}, but its body did not end: {detail}"


def is_the_proxys(error: Exception, course: Course, proxy: URL) -> bool:
    """Whether the way ended at the proxy: it was not reached, or made no tunnel, be it for the target's sake.

    What a proxy says of a target that it does not reach differs too much to be told apart.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError | aiohttp.ClientProxyConnectionError | aiohttp.ClientConnectorDNSError):
        return True
    if isinstance(error, aiohttp.ClientConnectorError):
        return (error.host, error.port) == (proxy.host, proxy.port)
    network = isinstance(error, OSError | aiohttp.ClientConnectionError) and not isinstance(error, ssl.SSLError)
    return network and course.ready is None and (course.secured is None or proxy.scheme == "https")


def _detail(error: Exception) -> str:
    """The error's text, bounded, without the URL, which may hold a password."""
    text = "" if isinstance(error, aiohttp.InvalidURL) else getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {text}"[:500]
