"""A large mail, fetched piece by piece. Each piece overlaps the one before, so that one from a wrong offset is noticed."""

from collections.abc import Callable
from io import BytesIO
from typing import Final

from workers.mail.imap.fetch_rows import Row, section
from workers.mail.mailbox_session import MAX_MAIL

PIECE: Final = 1024 * 1024  # bytes in one answer
_OVERLAP: Final = 4096  # bytes; less if pieces are smaller than twice that

Ask = Callable[[str], Row | None]
"""Returns the server's row for an item of FETCH of one mail; None if there is none."""


class _Misplaced(Exception):
    """A piece does not begin with the end of the one before."""


def in_pieces(ask: Ask, size: int) -> bytes | None:
    """The mail, which has `size` bytes if the server is right; None if a piece is missing or the pieces do not fit together.

    Dovecot 2.4.5 uses wrong offsets in the whole of a mail that is stored with CRLF, and right ones in its TEXT.
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
    """Joins pieces until the server returns no more; neither RFC822.SIZE nor a short piece alone proves the end."""
    whole = BytesIO()  # `getvalue` shares its buffer, so the mail is never in memory twice
    whole.write(head)
    tail = b""
    short = False  # whether the last piece was shorter than PIECE
    while whole.tell() <= MAX_MAIL:
        row = ask(f"BODY.PEEK[{what}]<{whole.tell() - len(head) - len(tail)}.{PIECE}>")
        piece = section(row) if row else None
        if piece is None and row and short and whole.tell():
            piece = tail  # NIL after the end, which comes before the size that the server gave
        if piece is None:
            return None
        if len(piece) > PIECE:
            return None if whole.tell() else piece  # the server ignores offsets and returns the whole mail
        if not piece.startswith(tail):
            raise _Misplaced
        whole.write(memoryview(piece)[len(tail) :])
        short = len(piece) < PIECE
        if len(piece) == len(tail) or (short and whole.tell() >= size):
            return whole.getvalue() if whole.tell() <= MAX_MAIL else None
        tail = piece[-min(_OVERLAP, len(piece) // 2) :]
    return None
