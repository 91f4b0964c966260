"""Between the rooms: a message that cannot go on becomes a dead letter, and a message again when it is replayed."""

from typing import Literal

from pipeline.formats.dead_letter import is_plain
from schemas.dead_letter import DeadLetter
from schemas.message import Message

_PROPERTIES = ("content_type", "content_encoding", "message_id", "type", "timestamp")


def dead_letter_of(
    message: Message, stage: Literal["admit", "append"], reason: str, detail: str, error: str | None = None
) -> DeadLetter:
    """A dead letter with all that came with `message`. Only its `headers` and `body` are exact; the rest is for reading."""
    properties = {name: getattr(message, name) for name in _PROPERTIES} | dict(message.others)
    return DeadLetter(
        stage=stage,
        reason=reason,
        detail=detail,
        error=error,
        tenant=message.tenant,
        source=message.source,
        event_id=message.message_id,
        routing_key=message.routing_key,
        content_type=message.content_type,
        headers={
            "headers": message.headers or {},
            "properties": {name: value for name, value in properties.items() if value is not None},
            "trusted": message.trusted,
            **({} if is_plain(message.routing_key) else {"routing_key": message.routing_key}),
        },
        body=message.body,
        blob=None if message.blob is None else message.blob.reference,
    )
