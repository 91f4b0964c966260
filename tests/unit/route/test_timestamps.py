"""Timestamps and forms as senders write them."""

from datetime import datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.bounded_json import members
from pipeline.formats.forms import MAX_FIELDS, MAX_FORM, fields, pairs
from pipeline.formats.timestamps import moment
from pipeline.sources.payload import digest, text_at


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-02T03:04:05.123456789+02:00", "2026-01-02T03:04:05.123456789+02:00"),
        ("1700000000", "2023-11-14T22:13:20Z"),
        (1700000000, "2023-11-14T22:13:20Z"),
        ("1355517523.000005", "2012-12-14T20:38:43.000005Z"),
        ("1355517523.5", "2012-12-14T20:38:43.500000Z"),
        ("1700000000123", "2023-11-14T22:13:20.123000Z"),
        ("1700000000123456", "2023-11-14T22:13:20.123456Z"),
        ("0", "1970-01-01T00:00:00Z"),
        (" Mon, 15 Aug 2005 15:52:01 +0200 ", "2005-08-15T13:52:01Z"),
        ("Mon, 15 Aug 2005 15:52:01 -0000", "2005-08-15T15:52:01Z"),
        ("2026-13-45T00:00:00Z", None),
        ("2026-01-02T03:04:05", None),
        ("99999999999999999", None),
        ("Mon, 99 Foo 2005 99:99:99 +9999", None),
        ("-1", None),
        ("now", None),
        ("", None),
        ("1" * 65, None),
        (True, None),
        (None, None),
        ([1], None),
        (float("inf"), None),
    ],
)
def test_a_time_is_read_however_it_is_written(written: object, expected: str | None) -> None:
    assert expected == moment(written)


@given(st.text(max_size=70) | st.integers() | st.floats() | st.text("0123456789.:+-TZ ,Mon", max_size=40))
def test_whatever_stands_for_a_time_it_is_one_or_none(written: object) -> None:
    found = moment(written)

    assert found is None or datetime.fromisoformat(found.upper()).tzinfo is not None


def test_a_form_is_read_to_the_byte() -> None:
    assert [(b"a", b"\xff\x00"), (b"b c", b""), (b"\xe9", b"x+y=z")] == pairs(b"a=%ff%00&b+c&\xe9=x%2By=z")
    assert {"a": "1", "\u00e9": "\u20ac"} == fields(b"a=1&a=2&%e9=%e2%82%ac")


def test_a_form_of_too_many_fields_is_refused() -> None:
    assert MAX_FIELDS == len(pairs(b"a&" * (MAX_FIELDS - 1) + b"a"))
    with pytest.raises(ValueError, match="fields"):
        pairs(b"a&" * MAX_FIELDS + b"a")
    assert {} == fields(b"a&" * MAX_FIELDS + b"a")


def test_a_form_of_too_many_bytes_is_refused() -> None:
    assert MAX_FORM - 2 == len(fields(b"a=" + b"x" * (MAX_FORM - 2))["a"])
    with pytest.raises(ValueError, match="bytes"):
        pairs(b"a=" + b"x" * (MAX_FORM - 1))


@given(st.binary(max_size=200) | st.text("a=&+%4\u00e9;", max_size=60).map(str.encode))
def test_a_form_is_read_as_the_standard_library_reads_it(body: bytes) -> None:
    expected = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")

    assert [(name.encode("latin-1"), value.encode("latin-1")) for name, value in expected] == pairs(body)
    assert len(fields(body)) <= len(pairs(body))


def test_text_is_found_only_where_it_is() -> None:
    document = members(b'{"a": {"b": "x", "n": 12345678901, "t": true, "e": "", "f": 1.5}, "l": [1]}')

    assert ["x", "12345678901", None, None, None, None, None] == [
        text_at(document, *path) for path in (("a", "b"), ("a", "n"), ("a", "t"), ("a", "e"), ("a", "f"), ("l", "0"), ("a",))
    ]
    assert ({}, {}) == (members(b"[1]"), members(b"{"))


def test_a_digest_tells_its_parts_apart() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert 32 == len(digest())
