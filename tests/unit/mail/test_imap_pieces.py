"""A large mail is fetched in pieces that fit together, or not at all."""

import re
from collections.abc import Callable

import pytest

from workers.mail.imap.fetch_rows import Row
from workers.mail.imap.pieces import PIECE, in_pieces

HEAD = b"Subject: n 1\r\n\r\n"
MAIL = HEAD + b"".join(b"%09d\r\n" % number for number in range(3 * PIECE // 11))


def server(shift: Callable[[str, int], int], most: int = PIECE) -> Callable[[str], Row]:
    """Serves pieces of `MAIL`. `shift` says by how much each begins beside the requested offset of a section."""

    def ask(item: str) -> Row:
        match = re.fullmatch(r"BODY\.PEEK\[(\w*)\](?:<(\d+)\.(\d+)>)?", item)
        assert match
        what = {"": MAIL, "TEXT": MAIL[len(HEAD) :], "HEADER": HEAD}[match[1]]
        at, count = int(match[2] or 0), min(int(match[3] or len(what)), most)
        begin = at + shift(match[1], at)
        return {b"UID": 1, b"BODY[%s]<%d>" % (match[1].encode(), at): what[begin : begin + count]}

    return ask


@pytest.mark.parametrize("most", [PIECE, PIECE // 3, 5000, 4096])
def test_pieces_of_any_length_are_joined(most) -> None:
    assert in_pieces(server(lambda *_: 0, most), len(MAIL)) == MAIL


@pytest.mark.parametrize("shift", [-1, -11, 1, 3])
def test_a_server_that_counts_wrongly_in_the_whole_is_asked_for_the_text(shift) -> None:
    assert in_pieces(server(lambda what, at: shift if at > 90_000 and not what else 0), len(MAIL)) == MAIL


def test_a_server_that_counts_wrongly_everywhere_gives_nothing() -> None:
    assert in_pieces(server(lambda _, at: -(at // 90_000)), len(MAIL)) is None


def test_an_item_that_the_server_did_not_return_is_none() -> None:
    assert in_pieces(lambda _: None, 10) is None
    assert in_pieces(lambda _: {b"UID": 1, b"BODY[]<0>": None}, 10) is None
