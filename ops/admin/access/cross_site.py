"""Tells requests that the console's own pages make from those that another site makes a browser send."""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Final
from urllib.parse import urlsplit

from pipeline.delivery.addresses import literal

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing


def foreign(method: str, headers: Mapping[str, str], public_url: str) -> str | None:
    """Why a request may come from another site; None for one of our own pages, and for a method that changes nothing.

    Browsers say with `Sec-Fetch-Site` where a request comes from; of those that do not, the `Origin` must be ours: that of
    `public_url`, or, if none is configured, the request's own host, which must then be on the loopback. Other addresses need
    `public_url`: an unknown name that leads here would be its own origin.
    """
    if method in SAFE:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else f"the request comes from another site ({site:.20})"
    origin = headers.get("origin")
    if origin is None:
        return "the request does not say where it comes from: it has neither Sec-Fetch-Site nor Origin"
    if public_url:
        ours = origin_of(public_url)
        return (
            None if origin == ours else f"the request comes from {origin:.100}, and the console is {ours} (WAXSEAL_CONSOLE_URL)"
        )
    host = headers.get("host", "")
    if origin == f"http://{host}" and _is_loopback(host):
        return None
    return f"the request comes from {origin:.100}: set WAXSEAL_CONSOLE_URL to the console's address"


def lacks_secret(expected: str, given: str | None) -> bool:
    """Whether a request lacks what only pages of its session know."""
    return given is None or not compare_digest(expected.encode(), given.encode(errors="replace"))


def origin_of(url: str) -> str:
    """The origin of an address, as browsers write it (RFC 6454)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" if parts.port in (None, default) else f"{parts.scheme}://{host}:{parts.port}"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    address = literal(name)
    return name == "localhost" or (address is not None and address.is_loopback)
