"""AMQP header values as JSON and back."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unreadable
from pipeline.formats.dead_letter import is_plain, tag, untag
from schemas.message import Opaque

words = st.text(alphabet=st.characters(), max_size=12) | st.sampled_from(["$bytes", "$table", "$", "\x00", "\udcff", "\\u0000"])
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
decimals = st.builds(lambda raw, places: Decimal(raw).scaleb(-places), st.integers(-(2**31), 2**31 - 1), st.integers(0, 255))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | words
    | st.binary(max_size=12)
    | moments
    | decimals
    | st.builds(Opaque, st.binary(max_size=12))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)


@given(values)
def test_every_value_survives_as_json_that_postgres_can_hold(value) -> None:
    stored = json.dumps(tag(value), allow_nan=False)
    found = untag(json.loads(stored))

    assert repr(value) == repr(found)
    assert "\\u0000" not in stored.replace("\\\\", "")


@given(st.dictionaries(words, values, min_size=1, max_size=2))
def test_no_table_can_pass_for_a_tagged_value(table) -> None:
    assert isinstance(untag(tag(table)), dict)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (b"\x00\xff", {"$bytes": "AP8="}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"$time": "2026-01-02T03:04:05+00:00"}),
        (datetime(2026, 1, 2), {"$time": "2026-01-02T00:00:00+00:00"}),  # noqa: DTZ001
        (Decimal("1.10"), {"$decimal": "1.10"}),
        (float("inf"), {"$float": "inf"}),
        ("a\x00b", {"$text": "YQBi"}),
        (Opaque(b"T\xff"), {"$opaque": "VP8="}),
        ({"$bytes": 1}, {"$table": [["$bytes", 1]]}),
        ({b"\xff": 1}, {"$table": [[{"$bytes": "/w=="}, 1]]}),
        ({"plain": [1, "text", None, True, 1.5]}, {"plain": [1, "text", None, True, 1.5]}),
        ((1, 2), [1, 2]),
    ],
)
def test_what_json_has_a_value_for_is_stored_as_it_is_and_the_rest_under_a_tag(value, stored) -> None:
    assert stored == tag(value)


def test_not_a_number_is_one_again() -> None:
    assert isnan(untag(tag(nan)))


@pytest.mark.parametrize("stored", [{"$nothing": 1}, {"$bytes": "AA==", "more": 1}])
def test_a_tag_that_nobody_made_is_refused(stored) -> None:
    with pytest.raises(Unreadable, match="tag"):
        untag(stored)


DEEP: list = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "stored",
    [
        {"$bytes": 5},
        {"$bytes": "?"},
        {"$bytes": "AAA"},
        {"$text": "/w=="},
        {"$text": None},
        {"$float": "x"},
        {"$float": 5},
        {"$decimal": "x"},
        {"$decimal": [0, [1], 0]},
        {"$time": "yesterday"},
        {"$time": 5},
        {"$opaque": "\u00e9"},
        {"$opaque": {}},
        {"$table": 5},
        {"$table": [5]},
        {"$table": [["a"]]},
        {"$table": [[[], 1]]},
        {"$table": [[{"a": 1}, 1]]},
        {"a": [{"$float": "x" * 100_000}]},
        DEEP,
    ],
    ids=lambda stored: repr(stored)[:30] if stored is not DEEP else "deep",
)
def test_content_that_its_tag_cannot_have_is_unreadable(stored) -> None:
    with pytest.raises(Unreadable) as refused:
        untag(stored)

    assert len(str(refused.value)) < 300


def test_what_amqp_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        tag(1j)


@pytest.mark.parametrize(("text", "plain"), [("", True), ("é\u2028", True), ("a\x00", False), ("\udcff", False)])
def test_text_is_plain_when_postgres_can_hold_it(text, plain) -> None:
    assert plain == is_plain(text)
