"""Rules of a source: JSON pointers and headers."""

import hashlib

import pytest

from pipeline.errors import Rejected
from pipeline.formats.extraction import Extractor, check_rule

BODY = b"""{"order": {"id": 9007199254740993, "total": 1.10, "paid": true, "note": "", "none": null,
           "lines": [{"sku": "a/b~c"}]}, "a/b": {"m~n": "escaped"}, "": "empty key"}"""


def read(rule: str, body: bytes = BODY) -> str | None:
    return Extractor({"x-order": "from the header", "x-list": ["not", "text"]}, body).read(rule)


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


@pytest.mark.parametrize(
    ("expected", "rule"),
    [("+1555", "form:From"), ("+1555", "form: From "), (None, "form:from"), (None, "form:Blank"), (None, "form:Absent")],
)
def test_a_form_rule_reads_a_field_of_a_form(expected, rule) -> None:
    assert expected == read(rule, b"From=%2B1555&From=2&Blank=")


def test_a_digest_rule_gives_the_sha256_of_any_body() -> None:
    assert hashlib.sha256(b"\xff").hexdigest() == read("digest:body", b"\xff")


@pytest.mark.parametrize("rule", ["/a", "/", "/a~1b/0", "header:X-Id", "form:From", "digest:body"])
def test_a_pointer_a_header_a_field_or_a_digest_is_a_rule(rule) -> None:
    check_rule(rule)


@pytest.mark.parametrize(
    "rule", ["", "a/b", "$.a", "header:", "header:  ", "HEADER:x", "body.id", "form:", "digest:", "digest:x"]
)
def test_anything_else_is_no_rule(rule) -> None:
    with pytest.raises(ValueError, match=r"header|form"):
        check_rule(rule)


def test_the_reason_is_short_however_long_the_rule_is() -> None:
    with pytest.raises(ValueError, match=r"header") as refused:
        check_rule("x" * 100_000)

    assert len(str(refused.value)) < 400
