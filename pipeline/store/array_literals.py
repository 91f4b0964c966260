"""Arrays as Postgres' literals (PostgreSQL 8.15.2): psycopg takes longer to make a short one than Postgres to read it."""

from collections.abc import Iterable


def plain(values: Iterable[object]) -> str:
    """An array of values whose text needs no quotes: numbers, booleans, hexadecimal digits."""
    return "{" + ",".join(map(str, values)) + "}"


def quoted(values: Iterable[object]) -> str:
    """An array of texts, times and other values that Postgres reads from their text; None becomes NULL."""
    return "{" + ",".join(["NULL" if value is None else _quoted(str(value)) for value in values]) + "}"


def octets(values: Iterable[bytes | None]) -> str:
    """A bytea[]; None becomes NULL."""
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
