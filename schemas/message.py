"""A message: bytes at the edge of the system, not yet admitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.blob import CLAIM, Blob, read_claim

#: AMQP properties that do not affect processing, except `user_id`. They are kept so that a dead letter is complete.
OTHERS: Final = ("delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "user_id", "app_id", "cluster_id")


#: The header with the original `user_id` of a replayed dead letter: the broker accepts that property only from a connection
#: of that user. The header is trusted only on the exchange where nobody but us may publish.
FIRST_USER: Final = "waxseal-user"

#: The header in which our own publishers say when they published a message, in Unix seconds, as text.
PUBLISHED_AT: Final = "waxseal-published-at"

#: The routing key of a message that asks how long messages wait in the inbox. It names no tenant: those have a name.
PROBE_KEY: Final = "."


@dataclass(frozen=True, slots=True)
class Opaque:
    """A header's value of a type that Python has no equivalent for: the type's byte and the rest, as received."""

    field: bytes


@dataclass(slots=True)
class Message:
    """A message as the broker delivered it. Do not modify; not frozen because that takes three times as long to make.

    `trusted`: it came through the exchange on which only our own receivers publish, so its source's signature has been
    checked; otherwise an upstream system published it, and its source must be of kind `amqp`.
    """

    routing_key: str
    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    message_id: str | None = None
    type: str | None = None
    timestamp: int | None = None  # Unix seconds, as AMQP defines it
    trusted: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)  # the properties in `OTHERS` that it had

    @property
    def tenant(self) -> str:
        """The tenant that the routing key `{tenant}.{source}` names; it need not exist."""
        return self.routing_key.partition(".")[0]

    @property
    def source(self) -> str:
        """The source that the routing key `{tenant}.{source}` names; it need not exist."""
        return self.routing_key.partition(".")[2]

    @property
    def blob(self) -> Blob | None:
        """The reference to the body, if our own receiver put it into the blob store; the header is ignored from anyone else."""
        if not self.trusted or not self.headers or CLAIM not in self.headers:
            return None
        return read_claim(self.headers[CLAIM])

    @property
    def published_at(self) -> float | None:
        """When one of our publishers published it, in Unix seconds; None if it was not one of ours."""
        if not self.trusted or not self.headers:
            return None
        try:
            return float(self.headers[PUBLISHED_AT])
        except (KeyError, TypeError, ValueError):  # an older publisher, or a replay
            return None

    @property
    def size(self) -> int:
        """Bytes of the body, inline or in the blob store."""
        if self.headers and CLAIM in self.headers and (blob := self.blob) is not None:
            return blob.size
        return len(self.body)
