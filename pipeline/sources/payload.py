"""What the bodies of messages say, for kinds that describe them; only more JSON than is read is an error (`Rejected`)."""

from hashlib import sha256
from typing import Any


def text_at(document: Any, *path: str) -> str | None:
    """The text or whole number where `path` leads through objects; None when there is neither, or nothing in it."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, int) and not isinstance(document, bool):
        return str(document)
    return document if isinstance(document, str) and document else None


def digest(*parts: bytes) -> str:
    """An id made of `parts`: 32 hexadecimal digits, other ones for other parts."""
    found = sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:32]
