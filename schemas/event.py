"""An event: an admitted message."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

#: The attributes that every event has (LEDGER §1), under their CloudEvents 1.0 names.
REQUIRED = ("id", "source", "specversion", "type", "subject", "time", "datacontenttype")


@dataclass(slots=True)
class Event:
    """One admitted event: its CloudEvents attributes, all strings, and its body as received. Do not modify.

    `fingerprint` (16 bytes) is the same for every redelivery of the same (tenant, source, origin, id); `chain_key` (16 bytes)
    for every event of the same (tenant, subject). If `blob`, a reference, is set, the body is stored there and not in the
    ledger's row; `body` must still hold it when the event is appended, because the entry commits to it. `former` is the
    fingerprint without the origin, under which an earlier version may have recorded the event.
    """

    tenant: str
    attributes: Mapping[str, str]
    body: bytes
    fingerprint: bytes
    chain_key: bytes
    blob: str | None = None
    former: bytes | None = None
    moment: datetime | None = field(default=None, compare=False)  # its time, if already parsed

    @property
    def id(self) -> str:
        """The id that the sender gave it."""
        return self.attributes["id"]

    @property
    def subject(self) -> str:
        """What the event is about; one chain per subject."""
        return self.attributes["subject"]


@dataclass(frozen=True, slots=True)
class Content:
    """What two events of the same identity are compared by: the body's SHA-256, the type and the subject."""

    body: bytes
    type: str
    subject: str
    origin: str | None = None
