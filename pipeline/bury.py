"""Beside the steps: a message that cannot be processed further becomes a dead letter, from which it can be replayed."""

from typing import Literal

from pipeline.formats.dead_letter import is_plain
from schemas.dead_letter import DeadLetter
from schemas.message import Message

_PROPERTIES = ("content_type", "content_encoding", "message_id", "type", "timestamp")


def dead_letter_of(
    message: Message, stage: Literal["admit", "append"], reason: str, detail: str, error: str | None = None
) -> DeadLetter:
    """A dead letter with everything in `message`. Only its `headers` and `body` are exact; the other fields are for people."""
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
