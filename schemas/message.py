"""A message: bytes at the edge of the system, not yet judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.blob import CLAIM, Blob, read_claim

#: AMQP's properties that nothing here goes by. They are kept so that a dead letter is whole.
OTHERS: Final = ("delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "user_id", "app_id", "cluster_id")


#: The header of a dead letter that is replayed, with the `user_id` that it had: a broker takes that property only from the user
#: himself. It is believed only on the exchange where nobody but us may publish.
FIRST_USER: Final = "waxseal-user"


@dataclass(frozen=True, slots=True)
class Opaque:
    """A header's value that Python has none for: the byte of its type and what follows, as it came over the wire."""

    field: bytes


@dataclass(slots=True)
class Message:
    """What the broker handed over, in the broker's own words. Not to be changed; frozen ones take three times as long to make.

    `trusted` says that it came through the exchange on which only our own receivers publish, so its source is one whose
    signature has been checked; otherwise an upstream system published it and its source must be of kind `amqp`.
    """

    routing_key: str
    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    message_id: str | None = None
    type: str | None = None
    timestamp: int | None = None  # Unix seconds, as AMQP has it
    trusted: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)  # those of `OTHERS` that it had

    @property
    def tenant(self) -> str:
        """The tenant that the routing key `{tenant}.{source}` names, which need not exist."""
        return self.routing_key.partition(".")[0]

    @property
    def source(self) -> str:
        """The source that the routing key `{tenant}.{source}` names, which need not exist."""
        return self.routing_key.partition(".")[2]

    @property
    def blob(self) -> Blob | None:
        """What stands for the body, if our own receiver put it into the blob store; nobody else can say so."""
        if not self.trusted or not self.headers or CLAIM not in self.headers:
            return None
        return read_claim(self.headers[CLAIM])

    @property
    def size(self) -> int:
        """Bytes of the body, wherever it is."""
        if self.headers and CLAIM in self.headers and (blob := self.blob) is not None:
            return blob.size
        return len(self.body)
