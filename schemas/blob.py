"""A blob: a body too large for a message or a row, kept in the blob store, and the reference that replaces it."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

LARGEST_INLINE: Final = 256 * 1024  # bytes; larger bodies go to the blob store
LARGEST: Final = 64 * 1024 * 1024  # bytes; no source accepts a larger body

#: The header that refers to the body, on messages of our own receivers; no other publisher may set it.
CLAIM: Final = "waxseal-blob"

_REFERENCE: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CLAIM: Final = re.compile(r"(sha256:[0-9a-f]{64})/([0-9]{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blob:
    """Names a body by its digest: `reference` is `sha256:` and 64 hexadecimal digits, `size` in bytes."""

    reference: str
    size: int

    @property
    def claim(self) -> str:
        """The value of the header `CLAIM`."""
        return f"{self.reference}/{self.size}"


def name(body: bytes) -> Blob:
    """The blob that `body` is stored as. Equal bodies have equal names."""
    return Blob(f"sha256:{sha256(body).hexdigest()}", len(body))


def read_claim(value: object) -> Blob | None:
    """The blob that the value of a `CLAIM` header refers to; None when the value is not a valid reference."""
    found = _CLAIM.fullmatch(value) if isinstance(value, str) else None
    return Blob(found[1], int(found[2])) if found else None


def is_reference(text: str) -> bool:
    """Whether `text` has the form of a blob's reference."""
    return _REFERENCE.fullmatch(text) is not None
