"""Requirements of RFC 9110 and 9112 on a request's head beyond the grammar, which the parser checks."""

import re
from collections.abc import Mapping
from typing import Final

import httptools

from workers.ingress.problems import Problem

_HOST: Final = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
_FRAMING: Final = ("content-length", "transfer-encoding")


def check_head(version: str, method: str, headers: Mapping[str, str], hosts: int) -> None:
    """Raise `Problem` for a head that an intermediary may have read as a different request; `hosts`: number of Host headers."""
    if method == "CONNECT":
        raise Problem("malformed", "this server is not a proxy")
    if hosts > 1 or (not hosts and version != "1.0") or not _HOST.fullmatch(headers.get("host", "")):
        raise Problem("malformed", "a request has one header Host, with a name and perhaps a port (RFC 9112, 3.2)")
    codings = headers.get("transfer-encoding")
    if codings is None:
        return
    if version == "1.0":
        raise Problem("malformed", "HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1)")
    *others, last = (coding.strip().lower() for coding in codings.split(","))
    if last == "chunked" and others:  # the parser refuses any other last coding, as the length is unknown
        if "chunked" in others:
            raise Problem("malformed", "Transfer-Encoding names chunked twice")
        raise Problem("not_implemented", "only the transfer coding chunked is supported: send the body as it is")


def path_of(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a request's target, still percent-encoded. Raises `Problem`."""
    if not target.isascii():
        raise Problem("malformed", "the path is not ASCII")
    if not target.startswith(b"/"):
        target = _origin_form(target)
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query


def _origin_form(target: bytes) -> bytes:
    """The path and query of an absolute URL, the form of target that clients send to proxies."""
    try:
        parsed = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Problem("malformed", "the request's target is neither a path nor a URL") from None
    return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")


def body_only(headers: Mapping[str, str]) -> bytes:
    """A head with only the body's framing from `headers`, to parse the body that follows."""
    lines = "".join(f"{name}: {headers[name]}\r\n" for name in _FRAMING if name in headers)
    return f"POST / HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
