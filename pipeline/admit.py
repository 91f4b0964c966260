"""Step 2, admit: a message becomes events, or is rejected with a reason."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pipeline.dedupe import DEFAULT_TYPE, chain_key, fingerprint, identity, name_origin
from pipeline.errors import Rejected
from pipeline.formats import cloudevents, trace_context
from pipeline.formats import known_attributes as facts
from pipeline.formats.extraction import HEADER, Extractor
from pipeline.formats.timestamps import moment
from schemas.blob import CLAIM, LARGEST_INLINE
from schemas.catalog import Catalog
from schemas.event import Event
from schemas.message import Message
from schemas.source import Source

DEFAULT_CONTENT_TYPE = "application/octet-stream"

Draft = tuple[dict[str, str], bytes]

#: AMQP's names for the types of header values that are not text.
_TYPES = {
    dict: "a table",
    list: "an array",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    datetime: "a timestamp",
}


def admit(message: Message, catalog: Catalog, now: datetime) -> list[Event]:
    """The events of `message`: one, or as many as a CloudEvents batch holds; all or none.

    Raises `Rejected`. An event without a time gets `now`. Its `source` becomes the configured source that it came through,
    which is the only one proved; if the sender named another, that name is kept as the extension `origin`. Both are part of
    its identity. If the message's body is in the blob store, the event has that `blob` and an empty body, which the caller
    fetches.
    """
    source = _source_of(message, catalog)
    size = message.size
    if size > source.max_body:
        raise Rejected("too_large", f"{size} bytes; source {source.name} takes {source.max_body}")
    claimed = _claimed(message) if message.headers and CLAIM in message.headers else None
    return [_event(source, catalog, attributes, body, now, claimed) for attributes, body in _drafts(message, source)]


def _claimed(message: Message) -> str:
    """The reference of the body in the blob store. Raises `Rejected` when the header is not from our own receivers."""
    blob = message.blob
    if blob is None or message.body or blob.size <= LARGEST_INLINE:
        raise Rejected("malformed", f"the header {CLAIM} is reserved for Waxseal's own receivers: leave it out")
    return blob.reference


def _source_of(message: Message, catalog: Catalog) -> Source:
    source = catalog.places.get(message.routing_key)
    if source is None:
        source = catalog.places[message.routing_key] = _look_up(message, catalog)
    if (source.kind == "amqp") == message.trusted:
        raise Rejected("wrong_kind", f"source {source.name} is of kind {source.kind}; only kind amqp is published to directly")
    if source.users:
        _check_user(message, source)
    return source


def _look_up(message: Message, catalog: Catalog) -> Source:
    if message.tenant not in catalog.tenants:
        raise Rejected("unknown_tenant", f"routing key {message.routing_key!r:.200} names no tenant")
    source = catalog.sources.get((message.tenant, message.source))
    if source is None:
        raise Rejected("unknown_source", f"tenant {message.tenant} has no source {message.source!r:.200}")
    return source


def _check_user(message: Message, source: Source) -> None:
    """Checks `user_id`. If a publisher sets that property, the broker has compared it with the publisher's login."""
    user = message.others.get("user_id")
    if user is None:
        raise Rejected("wrong_user", f"source {source.name} is bound to users: set the property user_id to the login's name")
    if user not in source.users:
        raise Rejected(
            "wrong_user", f"source {source.name} takes messages of {', '.join(source.users)} only, not of {user!r:.200}"
        )


def _drafts(message: Message, source: Source) -> Iterator[Draft]:
    headers = message.headers or {}
    traced = not message.trusted and trace_context.PARENT in headers  # our own receivers put the sender's with the attributes
    if facts.media_type(message.content_type) in (cloudevents.STRUCTURED, cloudevents.BATCH):
        drafts = cloudevents.events(message.content_type, message.body)
    else:
        attributes = facts.from_headers(headers) or _plain(message, headers)
        attributes.setdefault("datacontenttype", message.content_type or DEFAULT_CONTENT_TYPE)
        if message.content_encoding:
            attributes.setdefault("contentencoding", message.content_encoding)
        drafts = iter([(attributes, message.body)])
    for attributes, body in drafts:
        if not message.trusted and source.has_rules:
            lower = _lower(headers)
            _override(attributes, source, Extractor(lower, body), lower)
        if traced:
            _add_trace(attributes, headers)
        yield attributes, body


def _plain(message: Message, headers: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of a message that is not a CloudEvent, from AMQP's own properties (CONTRACT §5)."""
    found = {
        "id": message.message_id,
        "type": message.type,
        "time": _rfc3339(message.timestamp),
        "subject": _text("subject", headers.get("subject")),
    }
    return {name: value for name, value in found.items() if value}


def _add_trace(attributes: dict[str, str], headers: Mapping[str, Any]) -> None:
    """Adds the W3C trace context of the message's headers, if the event has none of its own.

    An invalid one must not reject the message. Some clients send all text as bytes.
    """
    trace_context.adopt(attributes, *(_decoded(headers.get(name)) for name in (trace_context.PARENT, trace_context.STATE)))


def _decoded(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _text(name: str, value: Any) -> str | None:
    """A header's value, if it is text. AMQP does not mark text as such, and some clients send all text as bytes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
        raise Rejected("malformed", f"the header {name} is not UTF-8")
    raise Rejected("malformed", f"the header {name} is not text, but {_TYPES.get(type(value), 'of a type that is not known')}")


def _override(attributes: dict[str, str], source: Source, reader: Extractor, headers: Mapping[str, Any]) -> None:
    rules = {"id": source.id, "type": source.type, "subject": source.subject, **source.extensions}
    for name, rule in rules.items():
        value = _read(rule, reader, headers) if rule else None
        if value is not None:
            attributes[name] = value
    if source.time and (at := moment(reader.read(source.time))):
        attributes["time"] = at


def _read(rule: str, reader: Extractor, headers: Mapping[str, Any]) -> str | None:
    if rule.startswith(HEADER):
        name = rule[len(HEADER) :].strip().lower()
        return _text(name, headers.get(name))
    return reader.read(rule)


def _event(source: Source, catalog: Catalog, attributes: dict[str, str], body: bytes, now: datetime, blob: str | None) -> Event:
    if not attributes.get("id"):
        raise Rejected("missing_id", "an event needs an id: CloudEvents id, property message_id, or the source's id rule")
    if not attributes.get("subject"):
        attributes["subject"] = source.name
    name_origin(attributes, source)
    attributes["specversion"] = attributes.get("specversion", "1.0")
    if not attributes.get("type"):
        attributes["type"] = DEFAULT_TYPE
    if not attributes.get("datacontenttype"):
        attributes["datacontenttype"] = DEFAULT_CONTENT_TYPE
    if "time" in attributes:
        at = facts.instant(attributes["time"])
    else:
        at = now
        attributes["time"] = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    facts.check(attributes)
    return event_of(source, catalog, attributes, body, blob, at)


def event_of(
    source: Source,
    catalog: Catalog,
    attributes: dict[str, str],
    body: bytes,
    blob: str | None = None,
    moment: datetime | None = None,
) -> Event:
    """The event with these attributes, which must have passed the checks, and with its identity."""
    key = catalog.tenants[source.tenant]
    former = None
    if catalog.before_origins and source.tenant in catalog.before_origins and attributes.get("origin"):
        former = fingerprint(key, source.name, attributes["id"])
    chain = chain_key(key, attributes["subject"])
    return Event(source.tenant, attributes, body, identity(key, attributes), chain, blob, former, moment)


def _rfc3339(timestamp: int | None) -> str | None:
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        raise Rejected("malformed", f"timestamp {timestamp} is not a time: AMQP counts seconds since 1970") from None


def _lower(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in headers.items()}
