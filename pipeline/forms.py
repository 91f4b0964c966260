"""Bodies of `application/x-www-form-urlencoded`, decoded to the bytes that were sent, whatever those are."""

from typing import Final
from urllib.parse import parse_qsl

FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 1000


def pairs(body: bytes) -> list[tuple[bytes, bytes]]:
    """Every field with its value, in order, blank ones too. Raises `ValueError` when there are more than `MAX_FIELDS`."""
    # Latin-1 both ways: each byte is one character and stays what it was.
    found = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=MAX_FIELDS)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in found]


def fields(body: bytes) -> dict[str, str]:
    """Each field with its first value, as UTF-8, or else Latin-1; empty when there are too many."""
    found: dict[str, str] = {}
    try:
        for name, value in pairs(body):
            found.setdefault(_text(name), _text(value))
    except ValueError:
        return {}
    return found


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
