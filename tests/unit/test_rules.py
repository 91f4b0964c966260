"""Rules of a source: JSON pointers and headers."""

import pytest

from pipeline.errors import Rejected
from pipeline.rules import Reader, check_rule

BODY = b"""{"order": {"id": 9007199254740993, "total": 1.10, "paid": true, "note": "", "none": null,
           "lines": [{"sku": "a/b~c"}]}, "a/b": {"m~n": "escaped"}, "": "empty key"}"""


def read(rule: str, body: bytes = BODY) -> str | None:
    return Reader({"x-order": "from the header", "x-list": ["not", "text"]}, body).read(rule)


@pytest.mark.parametrize(
    ("expected", "rule"),
    [
        ("9007199254740993", "/order/id"),
        ("1.10", "/order/total"),
        ("true", "/order/paid"),
        (None, "/order/note"),
        (None, "/order/none"),
        (None, "/order"),
        (None, "/order/lines"),
        ("a/b~c", "/order/lines/0/sku"),
        (None, "/order/lines/1/sku"),
        (None, "/order/lines/00/sku"),
        (None, "/order/lines/-1/sku"),
        (None, "/order/lines/-/sku"),
        (None, "/order/id/deeper"),
        ("escaped", "/a~1b/m~0n"),
        ("empty key", "/"),
        (None, "/absent"),
        ("from the header", "header:X-Order"),
        ("from the header", "header: x-order "),
        (None, "header:X-Absent"),
        (None, "header:X-List"),
    ],
)
def test_a_rule_reads_what_stands_where_it_points(expected, rule) -> None:
    assert expected == read(rule)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_pointer_into_something_that_is_no_json_is_rejected(body) -> None:
    with pytest.raises(Rejected, match="not JSON"):
        read("/order/id", body)


def test_a_header_rule_does_not_care_what_the_body_is() -> None:
    assert read("header:x-order", b"\xff") == "from the header"


@pytest.mark.parametrize("rule", ["/a", "/", "/a~1b/0", "header:X-Id"])
def test_a_pointer_or_a_header_is_a_rule(rule) -> None:
    check_rule(rule)


@pytest.mark.parametrize("rule", ["", "a/b", "$.a", "header:", "header:  ", "HEADER:x", "body.id"])
def test_anything_else_is_no_rule(rule) -> None:
    with pytest.raises(ValueError, match="header"):
        check_rule(rule)
