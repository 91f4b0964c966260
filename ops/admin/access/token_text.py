"""The text of a token of the API: `wxs_` id `_` secret `_` checksum, in letters and digits, so that a double click selects it.

The checksum tells a token that was cut off or mistyped from one that is not valid; a scanner for secrets knows it by its form.
"""

import re
import zlib
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

ID_LENGTH: Final = 8
SECRET_BYTES: Final = 32
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43  # digits in base 62 for 32 bytes
_SUM_LENGTH: Final = 6  # for 32 bits
_FORM: Final = re.compile(rf"(wxs_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9A-Za-z]{{{_SUM_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token that has the right form: its id, and the hash that is stored."""

    id: str
    hash: bytes = field(repr=False)


def make_token(randomness: bytes) -> str:
    """The token of `SECRET_BYTES` random bytes for its secret and as many more for its id."""
    secret, for_id = randomness[:SECRET_BYTES], randomness[SECRET_BYTES:]
    id_ = _base62(int.from_bytes(for_id), _SECRET_LENGTH)[-ID_LENGTH:]
    body = f"wxs_{id_}_{_base62(int.from_bytes(secret), _SECRET_LENGTH)}"
    return f"{body}_{_checksum(body)}"


def read_token(text: str) -> TokenText | None:
    """The token in a text; None if it does not have the form of one, or its checksum is wrong."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(match[1]) != match[3]:
        return None
    return TokenText(match[2], sha256(text.encode()).digest())


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _SUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
