"""Bodies of type `application/x-www-form-urlencoded`, decoded to the bytes that were sent, in any charset."""

from binascii import a2b_qp
from typing import Final
from urllib.parse import unquote_to_bytes

FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 1000
MAX_FORM: Final = 256 * 1024  # bytes; decoding is slow, and some kinds must decode before the sender is authenticated


def pairs(body: bytes) -> list[tuple[bytes, bytes]]:
    """Every field with its value, in order, empty values too. Raises `ValueError` above `MAX_FIELDS` or `MAX_FORM`."""
    if len(body) > MAX_FORM:
        raise ValueError(f"a form of more than {MAX_FORM} bytes")
    if body.count(b"&") >= MAX_FIELDS:
        raise ValueError(f"a form of more than {MAX_FIELDS} fields")
    fields = (field.partition(b"=") for field in body.split(b"&") if field)
    return [(_decoded(name), _decoded(value)) for name, _, value in fields]


def first_value(body: bytes, wanted: bytes) -> bytes:
    """The decoded value of the first field of that name; b"" without one. Takes forms of any size, and about as much memory."""
    for field in body.split(b"&", MAX_FIELDS):
        name, _, value = field.partition(b"=")
        if name == wanted:
            # Turns percent-encoding into quoted-printable, because the standard library decodes only the latter in C.
            return a2b_qp(value.replace(b"+", b" ").replace(b"=", b"%3D").replace(b"%", b"="))
    return b""


def fields(body: bytes) -> dict[str, str]:
    """Each field with its first value, decoded as UTF-8, else as Latin-1; empty when the form is too large."""
    found: dict[str, str] = {}
    try:
        for name, value in pairs(body):
            found.setdefault(_text(name), _text(value))
    except ValueError:
        return {}
    return found


def _decoded(octets: bytes) -> bytes:
    return unquote_to_bytes(octets.replace(b"+", b" "))


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
