"""Folders as servers list them, correctly or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.mail.imap.list_rows import names


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ([rb'(\HasNoChildren) "/" "INBOX"'], "INBOX"),
        ([rb'() "." Archive'], "Archive"),
        ([rb"() NIL 2026"], "2026"),
        ([rb'() "\\" "quo\"te\\d"'], 'quo"te\\d'),
        ([rb'() "/" "Gr&APwA3w-e"'], "Grüße"),
        ([(rb'(\Marked) "/" {6}', rb'a"b\c)'), b""], 'a"b\\c)'),
        ([rb'() "." "quo"te"'], 'quo"te'),  # GreenMail 2.1
        ([rb'() "." "R&D"'], "R&D"),
        ([rb'() "." "R&!!-"'], "R&!!-"),
        ([b'() "." "\xff"'], "ÿ"),
    ],
)
def test_a_folder_is_read_however_it_is_written(row, name) -> None:
    assert ["INBOX", name, "Sent"] == list(names([b'() "/" INBOX', *row, rb'(\Sent) "/" Sent', b"", None]))


@pytest.mark.parametrize("flag", [rb"\Noselect", rb"\NonExistent", rb"\HasChildren \NOSELECT"])
def test_what_is_no_folder_is_left_out(flag) -> None:
    assert ["INBOX"] == list(names([b"(" + flag + b') "/" "Shared"', b'() "/" INBOX', b"(" + flag + b') "/" "a"b"']))


def test_what_makes_no_sense_is_named_as_it_came_and_hides_no_other() -> None:
    assert ["nonsense (", "INBOX"] == list(names([b"nonsense (", b'() "/" INBOX']))
    deep = b"(" * 5000 + b")" * 5000 + b' "/" x'
    assert [deep.decode(), "INBOX"] == list(names([deep, b'() "/" INBOX']))


@given(st.lists(st.binary() | st.none() | st.tuples(st.binary(), st.binary())))
def test_nothing_that_a_server_says_raises(data) -> None:
    assert all(isinstance(name, str) for name in names(data))
