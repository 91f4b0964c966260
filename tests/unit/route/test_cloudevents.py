import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from pipeline.formats.cloudevents import batch, check, events, instant, structured


def document(**members: str) -> bytes:
    """A structured event with the members exactly as given."""
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


@pytest.mark.parametrize(
    "data",
    [
        '{"amount": 1.10}',
        "9007199254740993",
        '{"a":1,"a":2}',
        '"text"',
        '"\\u0000"',
        '"\\ud800"',
        "[ ]",
        "null",
        '{\n\t"deep": [[[1e400]]]}',
        "-0.0",
        '"ünïcode\u2028"',
    ],
)
def test_json_data_is_kept_to_the_byte_as_it_stands_in_the_document(data) -> None:
    attributes, body = structured(b" " + document(id='"1"', data=" " + data + "\n") + b"\n")

    assert data.encode() == body
    assert {"id": "1", "datacontenttype": "application/json"} == attributes


def test_text_data_of_another_type_is_its_text() -> None:
    _attributes, body = structured(document(datacontenttype='"text/plain"', data='"a\\nb\\u00e9"'))

    assert "a\nbé".encode() == body


def test_json_data_of_a_suffix_type_keeps_its_quotes() -> None:
    _attributes, body = structured(document(datacontenttype='"application/vnd.x+json; v=1"', data='"a"'))

    assert b'"a"' == body


@pytest.mark.parametrize("name", ["specversion", "x" * 100_000, "long"])
def test_the_reason_of_a_rejection_is_short_however_long_the_attribute_is(name) -> None:
    with pytest.raises(Rejected) as rejected:
        check({name: "2" * 100_000})

    assert len(rejected.value.detail) < 200


def test_base64_data_is_decoded() -> None:
    assert b"\x00\xff" == structured(document(data_base64='"AP8="'))[1]


def test_an_event_without_data_has_an_empty_body() -> None:
    assert b"" == structured(document(id='"1"'))[1]


def test_numbers_and_booleans_in_attributes_become_their_text_as_written() -> None:
    attributes, _body = structured(document(count="9007199254740993", flag="true", gone="null"))

    assert {"count": "9007199254740993", "flag": "true", "datacontenttype": "application/json"} == attributes


@pytest.mark.parametrize("name", ["data", "headers"])
def test_a_name_that_cannot_be_an_attribute_is_refused(name) -> None:
    with pytest.raises(Rejected, match=name):
        check({"id": "1", name: "x"})


def test_zero_with_a_sign_is_zero() -> None:
    assert "0" == structured(document(count="-0"))[0]["count"]


def test_a_batch_gives_its_events_in_order() -> None:
    text = b" [ " + document(id='"1"', data="{}") + b" , " + document(id='"2"', data_base64='"AA=="') + b" ] "

    assert [("1", b"{}"), ("2", b"\x00")] == [(attributes["id"], body) for attributes, body in batch(text)]


def test_an_empty_batch_is_no_events() -> None:
    assert [] == batch(b"[]")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"{",
        b"null",
        b"1",
        b"{}x",
        b'{"id":}',
        b'{"id":"1",}',
        b'{"id" "1"}',
        b'{1:"1"}',
        b'{"id":"1","id":"2"}',
        b'{"data":NaN}',
        b'{"id":[1]}',
        b'{"id":1}',
        b'{"id":"1","subject":["a"]}',
        b'{"id":"1","subject":{"a":1}}',
        b'{"id":"1","subject":1.5}',
        b'{"id":"1","subject":true}',
        b'{"id":"1","type":7}',
        b'{"id":"1","time":1767225600}',
        b'{"id":"1","datacontenttype":false}',
        b'{"id":"1","region":1.5}',
        b'{"id":"1","region":[]}',
        b'{"id":"1","\\ud800":[]}',
        b'{"data":1,"data_base64":"AA=="}',
        b'{"data_base64":1}',
        b'{"data_base64":"?"}',
        b'{"datacontenttype":"text/plain","data":"\\ud800"}',
        b'{"id":"\xff"}',
        b'{"data":' + b"[" * 100_000,
        b'{"data":' + b"[" * 201 + b"]" * 201 + b"}",
        b'{"data":"' + b"\\" * 99_999,
    ],
)
def test_a_malformed_document_is_rejected(body) -> None:
    with pytest.raises(Rejected, match="malformed"):
        structured(body)


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[{}", b"[{},]", b"[{}]x", b"[{} {}]", b"[" + b"{}," * 1000 + b"{}]"])
def test_a_malformed_batch_is_rejected(body) -> None:
    with pytest.raises(Rejected, match="malformed"):
        batch(body)


def test_brackets_inside_strings_are_no_depth() -> None:
    assert 1002 == len(structured(document(data='"' + "[" * 1000 + '"'))[1])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_any_json_survives_a_structured_event(value) -> None:
    text = json.dumps(value)

    assert text.encode() == structured(document(data=text))[1]


@given(st.sampled_from(["application/cloudevents+json", "application/cloudevents-batch+json"]), st.binary())
def test_whatever_is_no_document_is_rejected_and_nothing_else_is_raised(content_type, body) -> None:
    with suppress(Rejected):
        list(events(content_type, body))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00"),
        ("2026-01-01t00:00:00z", "2026-01-01T00:00:00+00:00"),
        ("2026-01-01T00:00:00.123456789+01:00", "2025-12-31T23:00:00.123456+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2016-12-31T15:59:60.5-08:00", "2017-01-01T00:00:00.500000+00:00"),
    ],
)
def test_a_time_is_read_to_the_microsecond(text, expected) -> None:
    assert expected == instant(text).isoformat()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-W01-1T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "2016-12-31T23:59:61Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T23:59:60+01:00",
        "9999-12-31T23:59:60Z",
    ],
)
def test_what_is_no_rfc_3339_time_is_rejected(text) -> None:
    with pytest.raises(Rejected, match="malformed"):
        instant(text)
