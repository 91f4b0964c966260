"""A blob: a body that is too large for a message or a row, kept in the blob store, and what stands in its place."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

LARGEST_INLINE: Final = 256 * 1024  # bytes; what is longer goes to the blob store
LARGEST: Final = 64 * 1024 * 1024  # bytes; no source takes more

#: The header that stands for the body, on messages of our own receivers; nobody else may set it.
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
    """The one name of `body`."""
    return Blob(f"sha256:{sha256(body).hexdigest()}", len(body))


def read_claim(value: object) -> Blob | None:
    """The blob that the value of a header `CLAIM` names; None when it names none."""
    found = _CLAIM.fullmatch(value) if isinstance(value, str) else None
    return Blob(found[1], int(found[2])) if found else None


def is_reference(text: str) -> bool:
    """Whether `text` can name a blob at all."""
    return _REFERENCE.fullmatch(text) is not None
