"""Values from the bodies of messages, for kinds that describe them, and ids made from bytes."""

from hashlib import sha256
from typing import Any


def text_at(document: Any, *path: str) -> str | None:
    """The text or whole number at `path` through nested objects; None if there is none, or the text is empty."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, int) and not isinstance(document, bool):
        return str(document)
    return document if isinstance(document, str) and document else None


def digest(*parts: bytes) -> str:
    """An id made from `parts`: 32 hexadecimal digits. Splitting the same bytes differently gives another id."""
    found = sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:32]
