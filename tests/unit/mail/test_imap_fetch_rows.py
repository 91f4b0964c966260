from hypothesis import given
from hypothesis import strategies as st

from workers.mail.imap.fetch_rows import rows

DATE = b'"17-Jul-2026 02:44:25 +0000"'


def test_rows_without_bodies_are_read() -> None:
    answer = [b"1 (UID 5 RFC822.SIZE 400 INTERNALDATE " + DATE + b")", b"2 (uid 6 rfc822.size 7)"]

    assert [
        {b"UID": 5, b"RFC822.SIZE": 400, b"INTERNALDATE": DATE[1:-1]},
        {b"UID": 6, b"RFC822.SIZE": 7},
    ] == list(rows(answer))


def test_rows_with_bodies_are_read_wherever_the_uid_stands() -> None:
    answer = [(b"1 (UID 5 BODY[] {3}", b"a)c"), b")", (b"2 (BODY[]<0> {2}", b"xy"), b" UID 6)"]

    assert [{b"UID": 5, b"BODY[]": b"a)c"}, {b"UID": 6, b"BODY[]<0>": b"xy"}] == list(rows(answer))


def test_a_section_without_a_space_before_its_literal_is_read() -> None:
    """GreenMail 2.1 writes it this way when a part of a mail was requested."""
    answer = [(b"7 (UID 7 BODY[]<0>{2}", b"xy"), b")", b"8 (UID 8)"]

    assert [{b"UID": 7, b"BODY[]<0>": b"xy"}, {b"UID": 8}] == list(rows(answer))


def test_a_row_in_another_form_does_not_hide_those_behind_it() -> None:
    answer = [
        b"1 (FLAGS (\\Seen))",
        (b"2 (UID 6 BODY[] {2}", b"xy"),
        b")",
        (b"3 (UID 7 FLAGS () BODY[] {2}", b"zz"),
        b")",
    ]

    assert [None, 6, 7] == [row.get(b"UID") for row in rows(answer)]
    assert [None, b"xy", b"zz"] == [row.get(b"BODY[]") for row in rows(answer)]


def test_what_cannot_be_read_ends_the_answer_and_raises_nothing() -> None:
    answer = [b"1 (UID 5)", b"2 (UID", (b"3 (UID 7 BODY[] {2}", b"zz"), b")"]

    assert [5] == [row.get(b"UID") for row in rows(answer)][:1]
    assert [] == list(rows([None]))
    assert [] == list(rows([]))


def test_a_number_of_too_many_digits_ends_the_answer_and_raises_nothing() -> None:
    assert [5] == [row[b"UID"] for row in rows([b"1 (UID 5)", b"2 (UID " + b"9" * 5000 + b")", b"3 (UID 7)"])]


def test_two_rows_of_one_number_stay_two() -> None:
    answer = [(b"1 (UID 5 BODY[] {2}", b"xy"), b")", b"1 (UID 6)"]

    assert [{b"UID": 5, b"BODY[]": b"xy"}, {b"UID": 6}] == list(rows(answer))


@given(st.lists(st.one_of(st.binary(max_size=60), st.tuples(st.binary(max_size=40), st.binary(max_size=10)), st.none())))
def test_whatever_a_server_says_nothing_is_raised(answer: list) -> None:
    for row in rows(answer):
        assert isinstance(row.get(b"UID", 0), int | bytes | tuple | None)
