"""An event: a message that was admitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

#: The attributes that every event has (LEDGER §1), CloudEvents 1.0 names.
REQUIRED = ("id", "source", "specversion", "type", "subject", "time", "datacontenttype")


@dataclass(slots=True)
class Event:
    """One admitted event: its CloudEvents attributes, values strings only, and its body as received. Not to be changed.

    `fingerprint` (16 bytes) is the same for every redelivery of the same (tenant, source, origin, id); `chain_key` (16 bytes)
    for every event of the same (tenant, subject). With a `blob`, which is the reference of one, the body is kept there and not
    in the ledger's row; it must be in hand all the same when the event is appended, because the entry commits to it. `former`
    is the fingerprint without the origin, under which an earlier version may have recorded the event.
    """

    tenant: str
    attributes: Mapping[str, str]
    body: bytes
    fingerprint: bytes
    chain_key: bytes
    blob: str | None = None
    former: bytes | None = None
    moment: datetime | None = field(default=None, compare=False)  # its time, where it was read already

    @property
    def id(self) -> str:
        """The id that the source gave it."""
        return self.attributes["id"]

    @property
    def subject(self) -> str:
        """What the event is about; one chain per subject."""
        return self.attributes["subject"]


@dataclass(frozen=True, slots=True)
class Content:
    """What two events of one identity are compared by: the SHA-256 of the body, the type and the subject."""

    body: bytes
    type: str
    subject: str
    origin: str | None = None
