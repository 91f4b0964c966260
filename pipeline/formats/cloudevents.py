"""CloudEvents 1.0 in its three modes. All functions raise `Rejected`, which says what is wrong with the event."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from pipeline.errors import Rejected
from pipeline.formats.bounded_json import check_size

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
AMQP_PREFIXES = ("cloudEvents:", "cloudEvents_")

MAX_BATCH = 1000  # events in one batch
MAX_ATTRIBUTES = 64
MAX_VALUE = 2048  # characters of one attribute
MAX_DEPTH = 200  # of the JSON of a structured event; checked before parsing

#: Attributes that are text (CloudEvents §2, §3.1). Another type is the sender's mistake, and its text form would be arbitrary.
_STRINGS = frozenset({"id", "source", "specversion", "type", "subject", "datacontenttype", "dataschema", "time"})
#: CloudEvents reserves the first; the ledger forbids the second (LEDGER §1).
_FORBIDDEN = frozenset({"data", "headers"})

_NAME = re.compile(r"[a-z0-9]{1,64}")
_JSON_TYPE = re.compile(r"^[^/]+/(?:[^;+]+\+)?json\s*(?:;|$)", re.IGNORECASE)
# An unterminated string matches up to the end of the body: a new search from each quote in it would take quadratic time.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)((?:\.\d+)?(?:Z|[+-]\d\d:\d\d))", re.ASCII | re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n]*")


def media_type(content_type: str | None) -> str:
    """The media type in lower case, without parameters; empty when there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


class _Integer(str):
    """A whole number in JSON, as written: no digit is lost."""

    __slots__ = ()


class _Fraction(str):
    """Any other number in JSON."""

    __slots__ = ()


def text_of(value: Any) -> str:
    """An attribute's value in the canonical string form of CloudEvents §3 (types), from its value in AMQP or JSON."""
    match value:
        case _Fraction():
            raise ValueError("a number that is not whole; write it in quotes")
        case _Integer():
            return "0" if value == "-0" else str(value)
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case bytes():
            return value.decode()
        case datetime():
            return value.replace(tzinfo=value.tzinfo or UTC).isoformat().replace("+00:00", "Z")
    raise ValueError(f"a value of type {type(value).__name__}")


def from_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """The attributes in AMQP headers in binary mode, under either prefix; empty when there are none."""
    found = {}
    for name, value in headers.items():
        if name.startswith(AMQP_PREFIXES) and value is not None:
            attribute = name[len("cloudEvents:") :].lower()
            found[attribute] = _text(attribute, value)
    return found


def structured(body: bytes) -> tuple[dict[str, str], bytes]:
    """The attributes and the body of one structured event. JSON data is kept to the byte as in the document."""
    return _structured(_decoded(body), 0)[0]


def batch(body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """The events of a batch, each as `structured` returns it."""
    text = _decoded(body)
    events: list[tuple[dict[str, str], bytes]] = []
    at = _after(text, 0, "[")
    if text[at : at + 1] == "]":
        _end(text, at + 1)
        return events
    while True:
        event, at = _structured(text, at, whole=False)
        events.append(event)
        if len(events) > MAX_BATCH:
            raise Rejected("malformed", f"a batch holds more than {MAX_BATCH} events")
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            _end(text, at + 1)
            return events
        at = _after(text, at, ",")


def check(attributes: Mapping[str, str]) -> None:
    """Raises `Rejected` unless CloudEvents and the ledger allow the names, the values and the version."""
    if attributes.get("specversion", "1.0") != "1.0":
        raise Rejected("malformed", f"specversion {attributes['specversion'][:80]!r} is not 1.0")
    if len(attributes) > MAX_ATTRIBUTES:
        raise Rejected("malformed", f"more than {MAX_ATTRIBUTES} attributes")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise Rejected("malformed", f"attribute name {name[:80]!r} is not lower-case letters and digits")
        if name in _FORBIDDEN:
            raise Rejected("malformed", f"no attribute can be called {name}: give the extension another name")
        if len(value) > MAX_VALUE:
            raise Rejected("malformed", f"attribute {name} is longer than {MAX_VALUE} characters")
        if not value.isprintable() and not _storable(value):
            raise Rejected("malformed", f"attribute {name} holds NUL or a lone surrogate")


def instant(value: str) -> datetime:
    """The RFC 3339 time in `value`, in UTC, to the microsecond. Raises `Rejected`.

    A leap second, 23:59:60 in UTC, becomes the second after it, as POSIX and Postgres count.
    """
    if match := _RFC3339.fullmatch(value):
        with suppress(ValueError, OverflowError):
            if match[2] != "60":
                return datetime.fromisoformat(value.upper()).astimezone(UTC)
            before = datetime.fromisoformat(f"{match[1]}59{match[3]}".upper()).astimezone(UTC)
            if (before.hour, before.minute) == (23, 59):
                return before + timedelta(seconds=1)
    raise Rejected("malformed", f"time {value[:80]!r} is not an RFC 3339 time with a zone")


def _storable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in value


def _decoded(body: bytes) -> str:
    depth = 0
    for match in _BRACKETS.finditer(body):
        depth += (match.group(1) is not None) - (match.group(2) is not None)
        if depth > MAX_DEPTH:
            raise Rejected("malformed", f"JSON nests more than {MAX_DEPTH} deep")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Rejected("malformed", f"a structured event is not UTF-8: {error.reason}") from None


def _structured(text: str, at: int, *, whole: bool = True) -> tuple[tuple[dict[str, str], bytes], int]:
    try:
        members, at = _members(text, at)
    except (ValueError, RecursionError) as error:
        raise Rejected("malformed", f"a structured event is not JSON: {error}") from None
    if whole:
        _end(text, at)
    data = members.pop("data", None)
    encoded = members.pop("data_base64", None)
    attributes = {name: _text(name, value) for name, (value, _raw) in members.items() if value is not None}
    attributes.setdefault("datacontenttype", "application/json")
    return (attributes, _body(attributes["datacontenttype"], data, encoded)), at


def _body(content_type: str, data: tuple[Any, str] | None, encoded: tuple[Any, str] | None) -> bytes:
    if encoded is not None:
        if data is not None or not isinstance(encoded[0], str):
            raise Rejected("malformed", "an event has either data or data_base64, a string")
        try:
            return base64.b64decode(encoded[0], validate=True)
        except binascii.Error as error:
            raise Rejected("malformed", f"data_base64 is not base64: {error}") from None
    if data is None:
        return b""
    value, raw = data
    if isinstance(value, str) and not _JSON_TYPE.match(content_type):
        raw = value
    try:
        return raw.encode()
    except UnicodeEncodeError:
        raise Rejected("malformed", "data holds a lone surrogate") from None


def _members(text: str, at: int) -> tuple[dict[str, tuple[Any, str]], int]:
    """The members of the object at `at`, each as (value, exact text), and the position after the object."""
    at = _after(text, at, "{")
    members: dict[str, tuple[Any, str]] = {}
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise ValueError(f"a member's name expected at character {at}")
        name, at = _DECODER.raw_decode(text, at)
        if name in members:
            raise ValueError(f"member {name!r:.80} occurs twice")
        start = _after(text, at, ":")
        value, at = _DECODER.raw_decode(text, start)
        members[name] = (value, text[start:at])
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return members, at + 1
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise Rejected("malformed", f"a structured event is not JSON: {mark!r} expected at character {at}")
    return _skip(text, at + 1)


def _end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise Rejected("malformed", f"a structured event is followed by something at character {at}")


def _text(name: str, value: Any) -> str:
    if name in _STRINGS and not _is_text(name, value):
        raise Rejected("malformed", f"attribute {name} must be text, not a value of type {type(value).__name__.strip('_')}")
    try:
        return text_of(value)
    except (ValueError, OverflowError) as error:
        raise Rejected(
            "malformed", f"attribute {name[:80]!r} is neither text nor a whole number nor a boolean: {error}"
        ) from None


def _is_text(name: str, value: Any) -> bool:
    """Whether the value counts as text: AMQP has a type for times, and some AMQP clients send all text as bytes."""
    if name == "time" and isinstance(value, datetime):
        return True
    return isinstance(value, str | bytes) and not isinstance(value, _Integer | _Fraction)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_Integer, parse_float=_Fraction, parse_constant=_refuse_constant)


def events(content_type: str | None, body: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
    """The events of a structured or batch document, by its media type."""
    check_size(body)
    if media_type(content_type) == BATCH:
        yield from batch(body)
    else:
        yield structured(body)
