"""Numbers of IMAP: those that a server sends, within bounds, and sets of UIDs as a command takes them."""

from collections.abc import Sequence
from typing import Final

MAX_NUMBER: Final = 2**63 - 1  # RFC 9051 §9, number64
LARGEST_UID: Final = 2**32 - 1


def number(said: bytes | int) -> int:
    """The number that a server sends. Raises ValueError if it exceeds `MAX_NUMBER`, because Postgres cannot store it."""
    value = int(said)
    if value > MAX_NUMBER:
        raise ValueError("a number is too large")
    return value


def sequence_set(uids: Sequence[int]) -> str:
    """UIDs as a sequence set (RFC 3501 §9), consecutive ones as ranges."""
    ranges: list[list[int]] = []
    for uid in sorted(uids):
        if ranges and uid == ranges[-1][1] + 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges)
