"""What is searched for becomes a range of the index, which has texts in the order of their bytes, cut to 500 characters."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ops.admin.search import cursors
from ops.admin.search.cursors import BadCursor
from ops.admin.search.found import BadSearch, between, matches

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=8)
PREFIXES = st.one_of(TEXTS, st.text(st.sampled_from(["\ud7ff", "\ue000", "\U0010ffff", "a", "%", "_", "\\"]), max_size=4))


@given(prefix=PREFIXES, rest=TEXTS, other=PREFIXES)
@example(prefix="\ud7ff", rest="x", other="\ue000")
@example(prefix="\U0010ffff", rest="\U0010ffff" * 8, other="")
@example(prefix="", rest="", other="\U0010ffff")
def test_a_prefix_is_the_range_of_just_the_texts_that_begin_with_it(prefix: str, rest: str, other: str) -> None:
    low, high = between(prefix + "*")
    assert low is not None
    assert high is not None

    for text in (prefix + rest, other, other + rest):
        assert text.startswith(prefix) == (low.encode() <= text.encode() < high.encode())


@given(wanted=TEXTS.filter(lambda text: not text.endswith("*")), other=TEXTS)
def test_a_text_is_the_range_of_itself_alone(wanted: str, other: str) -> None:
    low, high = between(wanted)
    assert low is not None
    assert high is not None

    for text in (wanted, other, wanted + other):
        assert (text == wanted) == (low.encode() <= text.encode() < high.encode())


@pytest.mark.parametrize("wanted", ["x" * 600, "x" * 599 + "*"])
def test_of_a_text_longer_than_the_index_has_its_beginning_is_looked_up_and_all_of_it_compared(wanted: str) -> None:
    low, high = between(wanted)
    assert high is not None

    assert low == "x" * 500 < high
    assert [True, wanted.endswith("*"), False] == [matches("x" * 600 + more, wanted) for more in ("", "y")] + [
        matches("x" * 500, wanted)
    ]


@pytest.mark.parametrize("wanted", ["a\x00b", "\ud800", "a\x00*"])
def test_what_postgres_could_not_have_is_refused(wanted: str) -> None:
    with pytest.raises(BadSearch):
        between(wanted)


@given(key=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), TEXTS)), filter_=st.dictionaries(TEXTS, TEXTS))
def test_a_cursor_holds_its_key_for_its_filter_only(key: list[object], filter_: dict[str, str]) -> None:
    cursor = cursors.encode(key, filter_)

    assert key == cursors.decode(cursor, filter_)
    with pytest.raises(BadCursor):
        cursors.decode(cursor, {**filter_, "more": "x"})


@given(st.text(max_size=60))
def test_nothing_else_is_a_cursor(cursor: str) -> None:
    with pytest.raises(BadCursor):
        cursors.decode(cursor, {})
