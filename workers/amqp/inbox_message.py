"""An event as a message for the inbox: CloudEvents' binary mode over AMQP (CONTRACT §5), which `pipeline.admit` decodes."""

from collections.abc import Mapping
from time import time
from typing import Final

from pika import BasicProperties

from pipeline.formats.cloudevents import BATCH, STRUCTURED
from pipeline.formats.known_attributes import media_type
from pipeline.formats.trace_context import PARENT, traceparent
from schemas.blob import CLAIM, Blob
from schemas.message import PUBLISHED_AT
from schemas.source import Source
from schemas.trace import TraceContext
from workers.amqp.confirm_window import Outgoing
from workers.amqp.topology import RECEIVED

_PREFIX: Final = "cloudEvents:"
_CONTENT_TYPE: Final = "datacontenttype"
_headed = _PREFIX.__add__
_SHORT: Final = 255  # bytes of a short string in AMQP
_PERSISTENT: Final = 2


def to_inbox(source: Source, attributes: Mapping[str, str], body: bytes | Blob, hop: TraceContext | None = None) -> Outgoing:
    """The message that carries an event of `source`, received and verified by one of our processes.

    A large body must be in the blob store already (`ops.runtime.blobs.Blobs.keep`); the message carries a reference to it.
    `hop` is the span in which it is published.
    """
    headers: dict[str, str] = dict(zip(map(_headed, attributes), attributes.values(), strict=True))
    content_type = headers.pop(_PREFIX + _CONTENT_TYPE)
    # As a property these types would announce a whole CloudEvent in the body, but the sender did not sign it as one.
    as_header = media_type(content_type) in (STRUCTURED, BATCH) or not _is_short(content_type)
    if as_header:
        headers[_PREFIX + _CONTENT_TYPE] = content_type
    headers[PUBLISHED_AT] = repr(time())
    if hop is not None:
        headers[PARENT] = traceparent(hop)
    if isinstance(body, Blob):
        headers[CLAIM] = body.claim
        body = b""
    properties = BasicProperties(
        content_type=None if as_header else content_type,
        delivery_mode=_PERSISTENT,
        headers=headers,
        message_id=attributes["id"] if _is_short(attributes["id"]) else None,
    )
    return Outgoing(RECEIVED, f"{source.tenant}.{source.name}", body, properties)


def _is_short(value: str) -> bool:
    return len(value) <= _SHORT and (value.isascii() or len(value.encode()) <= _SHORT)
