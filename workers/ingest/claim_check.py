"""The ingest worker's claim check: reads large bodies from the blob store, or writes them there, before they are recorded."""

from collections.abc import Sequence
from dataclasses import replace

from ops.runtime.blobs import Blobs
from pipeline.errors import BlobLost, Rejected
from schemas.blob import LARGEST_INLINE, Blob
from schemas.event import Event
from schemas.message import Message


def exchanged(blobs: Blobs, message: Message, events: Sequence[Event]) -> Sequence[Event]:
    """The events of `message` with their bodies in memory; large bodies are in the blob store too, and stay there.

    Raises `Rejected` when the body that the message refers to is missing or changed, and `BlobsAway`.
    """
    blob = message.blob
    if blob is not None:
        return [replace(event, body=_fetched(blobs, event.tenant, blob)) for event in events]
    return [event if len(event.body) <= LARGEST_INLINE else _kept(blobs, event) for event in events]


def _fetched(blobs: Blobs, tenant: str, blob: Blob) -> bytes:
    try:
        body = blobs.hold(tenant, blob.reference)
    except BlobLost as error:
        raise Rejected(error.kind, f"{error}: restore it there, and replay this") from None
    if len(body) != blob.size:
        raise Rejected("malformed", f"{blob.reference} holds {len(body)} bytes, not the {blob.size} that its message says")
    return body


def _kept(blobs: Blobs, event: Event) -> Event:
    return replace(event, blob=blobs.put(event.tenant, event.body).reference)
