"""A large mail, fetched piece by piece. Each overlaps the one before, so that one from another place is noticed."""

from collections.abc import Callable
from io import BytesIO
from typing import Final

from workers.mail.imap.fetch_rows import Row, section
from workers.mail.mailbox_session import MAX_MAIL

PIECE: Final = 1024 * 1024  # bytes in one answer
_OVERLAP: Final = 4096  # bytes; less where pieces are smaller than twice that

Ask = Callable[[str], Row | None]
"""What the server gives of one mail for an item of FETCH; None where it gives nothing."""


class _Misplaced(Exception):
    """A piece does not begin with what the one before ended with."""


def in_pieces(ask: Ask, size: int) -> bytes | None:
    """The mail, which has `size` bytes if the server is right; None where it is not given, or does not fit together.

    Dovecot 2.4.5 counts wrongly in a whole mail that is stored with CRLF, and rightly in its text.
    """
    try:
        return _joined(ask, "", b"", size)
    except _Misplaced:
        head = section(ask("BODY.PEEK[HEADER]") or {})
    try:
        return _joined(ask, "TEXT", head, size) if head else None
    except _Misplaced:
        return None


def _joined(ask: Ask, what: str, head: bytes, size: int) -> bytes | None:
    """Until the server says that there is no more: neither the size it named nor a short piece says so."""
    whole = BytesIO()  # gives its buffer away at the end, so that there never are two of a mail
    whole.write(head)
    tail = b""
    short = False  # the last piece was
    while whole.tell() <= MAX_MAIL:
        row = ask(f"BODY.PEEK[{what}]<{whole.tell() - len(head) - len(tail)}.{PIECE}>")
        piece = section(row) if row else None
        if piece is None and row and short and whole.tell():
            piece = tail  # NIL behind the end, which the server had said is farther away
        if piece is None:
            return None
        if len(piece) > PIECE:
            return None if whole.tell() else piece  # the whole, whatever was asked for
        if not piece.startswith(tail):
            raise _Misplaced
        whole.write(memoryview(piece)[len(tail) :])
        short = len(piece) < PIECE
        if len(piece) == len(tail) or (short and whole.tell() >= size):
            return whole.getvalue() if whole.tell() <= MAX_MAIL else None
        tail = piece[-min(_OVERLAP, len(piece) // 2) :]
    return None
