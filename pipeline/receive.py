"""Step 1, receive: the attributes of an HTTP message whose signature has been checked."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from pipeline.dedupe import name_origin
from pipeline.errors import Rejected
from pipeline.formats import cloudevents, trace_context
from pipeline.formats.bounded_json import TooManyValues, members
from pipeline.formats.extraction import Extractor
from pipeline.formats.known_attributes import check, media_type
from pipeline.formats.timestamps import moment
from pipeline.sources import KINDS, Headers
from schemas.source import Source

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
MAX_TOTAL: Final = 16 * 1024  # characters of all attributes together: they must fit in one AMQP frame of 128 KiB

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_CE: Final = "ce-"
_NO_RULES: Final = (None, None, None, None)
_instant: Final = lru_cache(256)(cloudevents.instant)  # messages of the same second often have the same time
_MISSING: Final = {"id": "missing_id", "subject": "missing_subject"}


def receive(
    source: Source, headers: Headers, body: bytes, now: datetime, fresh_id: Callable[[], str]
) -> list[tuple[dict[str, str], bytes]]:
    """The attributes and the body of each event in a message of `source`: one, or as many as a CloudEvents batch holds.

    The source's rules have priority, then what the kind or CloudEvents define, then guesses; `fresh_id` is called when
    nothing else gives an id. The body is kept to the byte. Raises `Rejected`, also when a rule for id, type or subject finds
    nothing; an extension or a time whose rule finds nothing is left out.
    """
    describe = KINDS[source.kind].describe
    if not all(map(str.isascii, headers.values())):
        headers = {name: _text(value) for name, value in headers.items()}
    if describe is not None:
        return [(_completed(source, headers, describe(source, headers, body), body, now, fresh_id), body)]
    content_type = headers.get("content-type")
    structured = media_type(content_type) in (cloudevents.STRUCTURED, cloudevents.BATCH)
    if structured or "ce-specversion" in headers:
        drafts = cloudevents.events(content_type, body) if structured else [(_binary(headers), body)]
        return [(_completed(source, headers, _native(attributes), data, now), data) for attributes, data in drafts]
    return [(_completed(source, headers, {}, body, now, fresh_id), body)]


def _completed(
    source: Source,
    headers: Headers,
    attributes: dict[str, str],
    body: bytes,
    now: datetime,
    fresh_id: Callable[[], str] | None = None,
) -> dict[str, str]:
    if source.extensions or (source.id, source.type, source.subject, source.time) != _NO_RULES:
        attributes.update(_ruled(source, Extractor(headers, body)))
    if fresh_id is not None:
        _guess(attributes, source, headers, body, fresh_id)
    name_origin(attributes, source)
    attributes["specversion"] = attributes.get("specversion", "1.0")
    attributes["subject"] = attributes.get("subject") or source.name
    attributes["datacontenttype"] = attributes.get("datacontenttype") or headers.get("content-type") or DEFAULT_CONTENT_TYPE
    _add_trace(attributes, headers)
    if "time" in attributes:
        _instant(attributes["time"])
    else:
        attributes["time"] = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    check(attributes)
    if sum(map(len, attributes.values())) > MAX_TOTAL:
        raise Rejected("malformed", f"the attributes hold more than {MAX_TOTAL} characters")
    return attributes


def _native(attributes: dict[str, str]) -> dict[str, str]:
    """The attributes, which hold all that CloudEvents requires. Raises `Rejected` when one is missing."""
    for name in ("specversion", "id", "source", "type"):
        if not attributes.get(name):
            raise Rejected(_MISSING.get(name, "malformed"), f"the CloudEvent has no {name}")
    return attributes


def _binary(headers: Headers) -> dict[str, str]:
    """The attributes in CloudEvents' binary mode, unquoted, then percent-decoded (HTTP protocol binding 1.0.2, §3.1.3.2)."""
    attributes = {}
    for name, value in headers.items():
        if name.startswith(_CE):
            try:
                attributes[name[len(_CE) :]] = unquote(_unquoted(value), errors="strict")
            except UnicodeDecodeError:
                raise Rejected("malformed", f"the header {name[:80]} is not percent-encoded UTF-8") from None
    attributes.pop("datacontenttype", None)  # in this mode the Content-Type header defines it
    return attributes


def _unquoted(value: str) -> str:
    """The content of a quoted string (RFC 7230 §3.2.6); any other value unchanged."""
    quoted = _QUOTED.fullmatch(value) if value[:1] == '"' else None
    return _QUOTED_PAIR.sub(r"\1", quoted[1]) if quoted else value


def _ruled(source: Source, reader: Extractor) -> Iterator[tuple[str, str]]:
    for name, rule in (("id", source.id), ("type", source.type), ("subject", source.subject)):
        if rule is not None:
            value = reader.read(rule)
            if not value:
                raise Rejected(_MISSING.get(name, "malformed"), f"the rule for {name} finds nothing at {rule}")
            yield name, value
    if source.time is not None and (at := moment(_optional(reader, source.time))):
        yield "time", at
    for name, rule in source.extensions.items():
        if value := _optional(reader, rule):
            yield name, value


def _optional(reader: Extractor, rule: str) -> str | None:
    """The value at `rule`; None when there is none, also because the body is not JSON."""
    try:
        return reader.read(rule)
    except TooManyValues:
        raise
    except Rejected:
        return None


def _guess(attributes: dict[str, str], source: Source, headers: Headers, body: bytes, fresh_id: Callable[[], str]) -> None:
    """Adds a missing id, type and subject from the places where senders commonly put them."""
    if attributes.get("id") and attributes.get("type") and attributes.get("subject"):
        return
    document = members(body)
    if not attributes.get("id"):
        attributes["id"] = headers.get("webhook-id") or headers.get("idempotency-key") or _id(document, body) or fresh_id()
    if not attributes.get("type"):
        attributes["type"] = _string(document, "type") or f"{source.name}.received"
    if not attributes.get("subject"):
        attributes["subject"] = _string(document, "subject") or source.name


def _string(document: Mapping[str, Any], name: str) -> str | None:
    found = document.get(name)
    return found if isinstance(found, str) else None


def _id(document: Mapping[str, Any], body: bytes) -> str | None:
    value = document.get("id")
    if isinstance(value, float):  # or an integer beyond 64 bits: parse again with a parser that keeps every digit
        with suppress(Rejected):
            return Extractor({}, body).read("/id")
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    return None


def _add_trace(attributes: dict[str, str], headers: Headers) -> None:
    """Adds the W3C trace context, if it is valid; an invalid one must not reject the message."""
    if trace_context.PARENT in headers:
        trace_context.adopt(attributes, headers[trace_context.PARENT], headers.get(trace_context.STATE))


def _text(value: str) -> str:
    """A header's value as text: UTF-8 if it is valid UTF-8, else Latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
