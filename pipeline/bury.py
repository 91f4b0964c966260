"""Between the rooms: a message that cannot go on becomes a dead letter, and a message again when it is replayed."""

from collections.abc import Mapping
from typing import Any, Literal

from pipeline.errors import Unreadable
from pipeline.tagged import is_plain
from schemas.deadletter import DeadLetter
from schemas.message import OTHERS, Message

_PROPERTIES = ("content_type", "content_encoding", "message_id", "type", "timestamp")


def letter_of(
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


def message_of(routing_key: str | None, headers: Mapping[str, Any], body: bytes | None) -> Message:
    """The message that `letter_of` was given, from what is kept of its dead letter. Raises `Unreadable`."""
    try:
        properties = dict(headers["properties"])
        others = {name: properties.pop(name) for name in OTHERS if name in properties}
        return Message(
            headers.get("routing_key", routing_key or ""),
            body or b"",
            headers=headers["headers"],
            trusted=headers["trusted"],
            others=others,
            **properties,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"what is kept of a dead letter is no message: {error!r}") from None
