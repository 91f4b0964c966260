"""Twilio: HMAC of the public URL and the form's fields in X-Twilio-Signature; with a JSON body, the URL holds the body's hash.

    public_base  the part of the URL before the path of a request, such as https://hooks.acme.example
    public_url   the whole URL without its query, if a proxy changes the path; one of the two is needed
    answer       twiml: answer <Response/>, so that Twilio does nothing in response to an incoming message or call

Source: twilio.com/docs/usage/security, "Validating Signatures from Twilio". SHA-1, or SHA-256, as in Twilio's libraries.
The URL comes from the configuration only: anybody can set Host and X-Forwarded-*, and one auth token signs for all URLs of an
account. No time is signed; the ids are made from signed bytes, so that a replay is recognised by them.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pipeline.formats.bounded_json import loads
from pipeline.formats.forms import FORM, fields, pairs
from pipeline.formats.timestamps import moment
from pipeline.sources.kind import (
    PATH,
    Headers,
    Kind,
    Reply,
    Sample,
    Unverified,
    any_equal,
    base64_bytes,
    check_answer,
    first_key,
    keys_of,
    need_secret,
    octets,
    unknown_options,
)
from pipeline.sources.payload import digest, text_at
from schemas.source import Source

_HEADER: Final = "x-twilio-signature"
_HASH: Final = b"bodySHA256"
_PORTS: Final = {"https": 443, "http": 80}
_ALGORITHMS: Final = {20: "sha1", 32: "sha256"}  # by the length of a signature
_PUBLIC: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[!-~]*)?")
_REPLIES: Final = {"twiml": Reply(200, b"text/xml", b"<Response/>")}


def verify(source: Source, headers: Headers, body: bytes, _now: datetime) -> None:
    """The URL and the body must be signed with one of the secrets, which are auth tokens."""
    given = base64_bytes(headers.get(_HEADER, "")) or b""
    algorithm = _ALGORITHMS.get(len(given))
    if algorithm is None:
        raise Unverified("malformed", "the header X-Twilio-Signature must hold a signature in base64")
    parameters = _parameters(headers, body)
    urls = _spellings(_public_url(source, headers))
    expected = [hmac.digest(key, octets(url) + parameters, algorithm) for key in keys_of(source) for url in urls]
    if not any_equal(expected, [given]):
        raise Unverified("signature", "X-Twilio-Signature does not match the public URL and the body")


def describe(source: Source, headers: Headers, body: bytes) -> dict[str, str]:
    """The attributes of a message, a call or a callback; a message's status is an event of its own."""
    form = _is_form(headers)
    said = fields(body) if form else _object(body)
    message, call, event = _first(said, "MessageSid", "SmsSid"), _first(said, "CallSid"), _first(said, "EventType")
    status = _first(said, "MessageStatus", "SmsStatus")
    made = digest(_canonical(body) if form else body)
    if message and status not in ("", "received", "receiving"):
        found = {"id": f"{message}-{status}", "type": f"message.status.{status}", "subject": message}
    elif message and not event:
        found = {"id": message, "type": "message.received", "subject": message}
    elif call:
        # Twilio may send several requests in one status of a call: each time it asks for the next instructions.
        found = {"id": f"{call}-{made[:16]}", "type": f"call.{_first(said, 'CallStatus') or 'event'}", "subject": call}
    else:
        about = _first(said, "ConversationSid", "subject") or message or source.name
        found = {"id": _first(said, "id") or made, "type": event or _first(said, "type"), "subject": about}
    found["time"] = moment(_first(said, "Timestamp", "time")) or ""
    return {name: value for name, value in found.items() if value}


def check(source: Source) -> list[str]:
    """A secret is needed, and the public URL in one of its two forms."""
    problems = need_secret(source) + unknown_options(source, "public_base", "public_url", "answer")
    given = [name for name in ("public_base", "public_url") if name in source.options]
    if len(given) != 1:
        problems.append(
            "kind twilio signs the URL that Twilio calls: it needs option public_base, as https://hooks.acme.example,"
            " or option public_url where a proxy changes the path, and one of them only"
        )
    for name in given:
        value = source.options[name]
        if not _PUBLIC.fullmatch(value) or "?" in value or "#" in value:
            problems.append(f"option {name} must be an http:// or https:// URL without user, query or fragment")
    return problems + check_answer(source, _REPLIES)


def sign(source: Source, headers: Headers, body: bytes, _now: datetime) -> dict[str, str]:
    """The signature, and the path; if the body is not a form, the path's query holds the body's hash."""
    path = headers.get(PATH, "/")
    if not _is_form(headers):
        path += f"{'&' if '?' in path else '?'}{_HASH.decode()}={sha256(body).hexdigest()}"
    signed = {**headers, PATH: path}
    content = octets(_public_url(source, signed)) + _parameters(signed, body)
    return {_HEADER: base64.b64encode(hmac.digest(first_key(source), content, "sha1")).decode(), PATH: path}


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith(FORM)


def _public_url(source: Source, headers: Headers) -> str:
    path, mark, query = headers.get(PATH, "").partition("?")
    url = source.options.get("public_url") or source.options.get("public_base", "").rstrip("/") + path
    return url + mark + query


def _spellings(url: str) -> list[str]:
    """The URL without and with its port: Twilio signs either."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return [url]
    name, before = parts.netloc.partition(":")[0], f"{parts.scheme}://"
    if not host or not name:
        return [url]
    rest = url[len(before) + len(parts.netloc) :]
    return [f"{before}{name}{rest}", f"{before}{name}:{port or _PORTS.get(parts.scheme, 80)}{rest}"]


def _parameters(headers: Headers, body: bytes) -> bytes:
    """The signed content after the URL: the form's fields, or nothing if the query has the body's hash, which must be right."""
    query = headers.get(PATH, "").partition("?")[2]
    hashes = [value for name, value in _pairs(octets(query)) if name == _HASH]
    if hashes:
        if len(hashes) > 1 or not hmac.compare_digest(hashes[0].lower(), sha256(body).hexdigest().encode()):
            raise Unverified("signature", f"{_HASH.decode()} in the query is not the SHA-256 of the body")
        return b""
    if not _is_form(headers):
        raise Unverified("malformed", f"a body that is no form needs its hash in the query, as {_HASH.decode()}")
    return _joined(_pairs(body))


def _canonical(body: bytes) -> bytes:
    """The signed content of a form: the same for all bodies that one signature is valid for."""
    try:
        return _joined(pairs(body))
    except ValueError:
        return body


def _joined(found: list[tuple[bytes, bytes]]) -> bytes:
    """Each field's name and value, sorted, without repetitions."""
    return b"".join(chain.from_iterable(sorted(set(found))))


def _pairs(form: bytes) -> list[tuple[bytes, bytes]]:
    try:
        return pairs(form)
    except ValueError as error:
        raise Unverified("malformed", str(error)) from None


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, or the only one in an array, as Twilio's event streams send it."""
    document = loads(body) if body.lstrip()[:1] in (b"{", b"[") else None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    return document if isinstance(document, dict) else {}


def _first(said: dict[str, Any], *names: str) -> str:
    return next((found for name in names if (found := text_at(said, name))), "")


def sample(fresh: str, _now: datetime) -> Sample:
    """A text message that was received."""
    told = {"From": "+14158675309", "To": "+18005551212", "Body": "hello", "SmsStatus": "received"}
    return {"content-type": FORM}, {"MessageSid": f"SM{fresh}", "AccountSid": "AC_sample", **told}


def posted_to(options: Mapping[str, str], url: str) -> Mapping[str, str]:
    """The URL is what Twilio signs, unless the options name another."""
    if options.keys() & {"public_base", "public_url"}:
        return options
    return {**options, "public_url": urlunsplit((*urlsplit(url)[:3], "", ""))}


KIND = Kind(verify, check, sign, describe, replies=_REPLIES, sample=sample, posted_to=posted_to)
