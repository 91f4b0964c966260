import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit import admit
from pipeline.errors import Rejected
from pipeline.formats import cloudevents
from pipeline.formats.known_attributes import check as check_attributes
from pipeline.receive import MAX_TOTAL, receive
from schemas.catalog import Catalog
from schemas.message import Message
from schemas.source import Source
from workers.amqp.inbox_message import to_inbox

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OPEN = Source("acme", "shop", "none")
GITHUB = Source("acme", "code", "github", ("s",))
HOOKS = Source("acme", "hooks", "standard-webhooks", ("s",))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Attributes = dict[str, str]


def taken(source: Source, body: bytes = b"", **headers: str) -> tuple[Attributes, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    (event,) = receive(source, named, body, NOW, lambda: "fresh")
    return event


def attributes(source: Source, body: bytes = b"", **headers: str) -> Attributes:
    return taken(source, body, **headers)[0]


def refusal(source: Source, body: bytes = b"", **headers: str) -> Rejected:
    with pytest.raises(Rejected) as rejected:
        taken(source, body, **headers)
    return rejected.value


def test_what_says_nothing_of_itself_is_received_under_a_fresh_id() -> None:
    assert {
        "id": "fresh",
        "source": "shop",
        "specversion": "1.0",
        "type": "shop.received",
        "subject": "shop",
        "time": "2026-01-02T03:04:05.678901Z",
        "datacontenttype": "application/octet-stream",
    } == attributes(OPEN, b"\xff\x00")


def test_the_time_of_arrival_is_told_in_utc() -> None:
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    ((found, _),) = receive(OPEN, {}, b"", berlin, lambda: "fresh")

    assert "2026-01-02T03:04:05.678901Z" == found["time"]


def test_a_json_body_gives_id_type_and_subject() -> None:
    body = b'{"id": "e-1", "type": "order.paid", "subject": "order/7", "source": "ignored", "time": "ignored"}'

    found = attributes(OPEN, body, content_type="application/json; charset=utf-8")

    assert ("e-1", "order.paid", "order/7", "shop") == tuple(found[name] for name in ("id", "type", "subject", "source"))
    assert "application/json; charset=utf-8" == found["datacontenttype"]
    assert "origin" not in found


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("42", "42"),
        ("-7", "-7"),
        ("0", "0"),
        ('"x"', "x"),
        ("18446744073709551615", "18446744073709551615"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1.10", "1.10"),
        ("true", "fresh"),
        ("null", "fresh"),
        ('""', "fresh"),
        ("[1]", "fresh"),
        ("{}", "fresh"),
    ],
)
def test_an_id_in_the_body_is_taken_when_it_is_text_or_a_number_and_keeps_every_digit(literal: str, expected: str) -> None:
    assert expected == attributes(OPEN, f'{{"id": {literal}}}'.encode())["id"]


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"7", b"<xml/>", b'{"id"', b'{"type": 7, "subject": {}}'])
def test_a_body_without_such_members_is_received_all_the_same(body: bytes) -> None:
    found = attributes(OPEN, body)

    assert ("fresh", "shop.received", "shop") == tuple(found[name] for name in ("id", "type", "subject"))


def test_a_header_for_the_id_comes_before_the_body() -> None:
    body = b'{"id": "body"}'

    assert "key" == attributes(OPEN, body, idempotency_key="key")["id"]
    assert "hook" == attributes(OPEN, body, idempotency_key="key", webhook_id="hook")["id"]


# Rules.

RULED = replace(
    OPEN, id="/data/no", type="header:X-Kind", subject="/data/who", extensions={"region": "/r", "shard": "header:X-S"}
)


def test_a_sources_rules_come_before_everything_else() -> None:
    body = b'{"id": "no", "type": "no", "subject": "no", "data": {"no": 7, "who": "w-1"}, "r": "eu"}'

    found = attributes(RULED, body, x_kind="paid", webhook_id="no")

    assert ("7", "paid", "w-1", "eu") == tuple(found[name] for name in ("id", "type", "subject", "region"))
    assert "shard" not in found


def test_rules_come_before_what_a_kind_says() -> None:
    headers = {"webhook_id": "msg_1", "webhook_timestamp": "1767225600", "webhook_signature": "v1,x"}

    assert "7" == attributes(replace(HOOKS, id="/no"), b'{"no": 7}', **headers)["id"]


def test_rules_come_before_what_a_cloud_event_says_and_read_its_data() -> None:
    event = {"specversion": "1.0", "id": "e-1", "source": "s", "type": "t", "data": {"no": 9}}
    body = json.dumps(event).encode()

    assert "9" == attributes(replace(OPEN, id="/no"), body, content_type="application/cloudevents+json")["id"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [({"id": "/nope"}, "missing_id"), ({"type": "header:X-Nope"}, "malformed"), ({"subject": "/a/b"}, "missing_subject")],
)
def test_a_rule_that_finds_nothing_is_named(rule: dict[str, str], reason: str) -> None:
    error = refusal(replace(OPEN, **rule), b'{"a": []}')  # type: ignore[arg-type]

    assert reason == error.reason
    assert next(iter(rule.values())) in error.detail


def test_a_rule_into_a_body_that_is_not_json_rejects_it() -> None:
    assert "malformed" == refusal(replace(OPEN, id="/id"), b"<xml/>").reason


def test_an_extension_that_is_not_there_is_left_out() -> None:
    assert "region" not in attributes(replace(OPEN, extensions={"region": "/r"}), b"<xml/>")


# Kinds with a format of their own.


def test_github_says_its_delivery_its_event_and_the_repository() -> None:
    body = b'{"id": "no", "repository": {"full_name": "octo/cat"}}'

    found = attributes(GITHUB, body, x_github_delivery="d-1", x_github_event="push", content_type="application/json")

    assert ("d-1", "push", "octo/cat", "code") == tuple(found[name] for name in ("id", "type", "subject", "source"))


def test_github_may_send_a_form() -> None:
    payload = "payload=" + quote('{"repository": {"full_name": "octo/cat"}}')

    found, body = taken(GITHUB, payload.encode(), x_github_delivery="d", content_type="application/x-www-form-urlencoded")

    assert ("octo/cat", payload.encode()) == (found["subject"], body)


def test_a_github_event_without_a_repository_is_about_the_source() -> None:
    assert "code" == attributes(GITHUB, b'{"zen": "."}', x_github_delivery="d", x_github_event="ping")["subject"]


def test_a_standard_webhook_says_its_id_and_time_and_its_body_the_type() -> None:
    headers = {"webhook_id": "msg_1", "webhook_timestamp": "1767225600", "webhook_signature": "v1,x"}

    found = attributes(HOOKS, b'{"type": "user.created", "id": "no", "data": {}}', **headers)

    assert ("msg_1", "user.created", "hooks", "2026-01-01T00:00:00Z") == tuple(
        found[name] for name in ("id", "type", "subject", "time")
    )


def test_cloud_events_are_not_looked_for_where_a_kind_has_its_own_form() -> None:
    headers = {"webhook_id": "msg_1", "webhook_timestamp": "1767225600", "webhook_signature": "v1,x"}
    body = b'{"specversion": "1.0", "id": "e-1", "source": "s", "type": "t", "data": 1}'

    found, kept = taken(HOOKS, body, content_type="application/cloudevents+json", ce_id="no", ce_specversion="1.0", **headers)

    assert ("msg_1", body) == (found["id"], kept)


# CloudEvents.

CE = {"ce_specversion": "1.0", "ce_id": "e-1", "ce_type": "order.paid", "ce_source": "/orders"}


def test_a_binary_cloud_event_says_itself() -> None:
    found, body = taken(
        OPEN, b'{"id": "no"}', content_type="text/json", ce_subject="s", ce_time="2026-01-01T00:00:00Z", ce_x="y", **CE
    )

    assert {
        "id": "e-1",
        "type": "order.paid",
        "source": "shop",
        "origin": "/orders",
        "specversion": "1.0",
        "subject": "s",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "text/json",
        "x": "y",
    } == found
    assert b'{"id": "no"}' == body


def test_binary_attributes_are_percent_decoded() -> None:
    assert "Euro \u20ac \U0001f600" == attributes(OPEN, ce_subject="Euro%20%E2%82%AC%20%F0%9F%98%80", **CE)["subject"]
    assert "malformed" == refusal(OPEN, ce_subject="%ff", **CE).reason


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('"order 1"', "order 1"),
        ('"a \\"quoted\\" \\\\ word"', 'a "quoted" \\ word'),
        ('"Euro%20%E2%82%AC"', "Euro \u20ac"),
        ('say "hi"', 'say "hi"'),
        ('"a" and "b"', '"a" and "b"'),
        ('"never closed', '"never closed'),
        ('"', '"'),
        ('""', "shop"),
    ],
)
def test_quoted_attributes_are_unquoted_before_they_are_percent_decoded(sent: str, expected: str) -> None:
    assert expected == attributes(OPEN, ce_subject=sent, **CE)["subject"]


def test_a_leap_second_is_kept_as_it_was_sent() -> None:
    assert "2016-12-31T23:59:60Z" == attributes(OPEN, ce_time="2016-12-31T23:59:60Z", **CE)["time"]


@pytest.mark.parametrize("name", ["ce_data", "ce_headers"])
def test_an_attribute_with_a_name_that_is_taken_is_malformed(name: str) -> None:
    assert "malformed" == refusal(OPEN, **CE, **{name: "x"}).reason


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source"])
def test_a_cloud_event_needs_what_the_specification_requires(name: str) -> None:
    rest = {key: value for key, value in CE.items() if key != name}

    assert ("missing_id" if name == "ce_id" else "malformed") == refusal(OPEN, **rest).reason


def test_another_version_of_cloud_events_is_malformed() -> None:
    assert "malformed" == refusal(OPEN, **CE | {"ce_specversion": "0.3"}).reason


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_a_time_must_be_an_instant(time: str) -> None:
    assert "malformed" == refusal(OPEN, ce_time=time, **CE).reason


def test_a_structured_cloud_event_keeps_its_data_to_the_byte() -> None:
    data = b'{"a": 1.10, "a": 2,  "b": 12345678901234567890, "c": "\\u00e9"}'
    body = b'{"specversion":"1.0","id":"e-1","source":"/o","type":"t","subject":"s","data":' + data + b"}"

    found, kept = taken(OPEN, body, content_type="application/cloudevents+json; charset=utf-8")

    assert ("e-1", "/o", "s", "application/json", data) == (
        found["id"],
        found["origin"],
        found["subject"],
        found["datacontenttype"],
        kept,
    )


def test_a_batch_holds_several_events_or_none() -> None:
    events = [{"specversion": "1.0", "id": f"e-{n}", "source": "s", "type": "t", "data": n} for n in range(3)]
    headers = {"content-type": "application/cloudevents-batch+json"}

    received = receive(OPEN, headers, json.dumps(events).encode(), NOW, lambda: "fresh")

    assert [("e-0", b"0"), ("e-1", b"1"), ("e-2", b"2")] == [(found["id"], body) for found, body in received]
    assert [] == receive(OPEN, headers, b"[]", NOW, lambda: "fresh")


def test_one_bad_event_rejects_its_batch() -> None:
    body = b'[{"specversion":"1.0","id":"1","source":"s","type":"t"},{"specversion":"1.0","id":"2"}]'

    assert "malformed" == refusal(OPEN, body, content_type="application/cloudevents-batch+json").reason


# Bounds and odd cases.


def test_trace_context_is_kept_when_it_is_in_order() -> None:
    found = attributes(OPEN, traceparent=TRACE, tracestate="a=1")

    assert (TRACE, "a=1") == (found["traceparent"], found["tracestate"])
    assert "traceparent" not in attributes(OPEN, traceparent="00-nonsense", tracestate="a=1")
    assert "tracestate" not in attributes(OPEN, traceparent="00-nonsense", tracestate="a=1")
    assert "tracestate" not in attributes(OPEN, traceparent=TRACE, tracestate="x" * 513)


def test_headers_in_utf8_are_read_as_such_and_others_as_latin_1() -> None:
    assert "Gr\u00fc\u00dfe" == attributes(OPEN, webhook_id="Gr\u00fc\u00dfe".encode().decode("latin-1"))["id"]
    assert "Gr\u00fc\u00dfe" == attributes(OPEN, webhook_id="Gr\u00fc\u00dfe")["id"]


def test_attributes_are_bounded_one_by_one_and_together() -> None:
    assert "malformed" == refusal(OPEN, webhook_id="x" * 2049).reason
    many = {f"ce_x{n}": "x" * 2000 for n in range(MAX_TOTAL // 2000 + 1)}
    assert "malformed" == refusal(OPEN, **CE, **many).reason
    assert "malformed" == refusal(OPEN, **CE, **{f"ce_x{n}": "x" for n in range(64)}).reason


@given(
    st.lists(
        st.one_of(st.text(max_size=5), st.sampled_from(["x" * 2048, "x" * 2049, "\n", "\x00", "\ud800"])),
        min_size=3,
        max_size=3,
    )
)
def test_names_that_are_known_are_checked_as_those_that_are_not(values: list[str]) -> None:
    found = {"specversion": "1.0", **dict(zip(("id", "type", "subject"), values, strict=True))}

    def verdict(check: Callable[[Mapping[str, str]], None]) -> str | None:
        try:
            check(found)
        except Rejected as error:
            return error.detail
        return None

    check_attributes({**found, **dict.fromkeys(("id", "type", "subject"), "x")})
    assert verdict(cloudevents.check) == verdict(check_attributes)


@pytest.mark.parametrize("body", [b'{"id": "a\\u0000b"}', b'{"id": "x", "type": "\\u0000"}'])
def test_what_postgres_cannot_hold_is_malformed(body: bytes) -> None:
    assert "malformed" == refusal(OPEN, body).reason


# A message survives the inbox unchanged.

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=50)
TYPES = st.sampled_from(
    ["", "application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain; x=" + "y" * 300]
)


def redelivered(source: Source, found: Attributes, body: bytes) -> Message:
    message = to_inbox(source, found, body)
    properties = message.properties
    return Message(
        message.routing_key,
        message.body,
        properties.content_type,
        properties.content_encoding,
        properties.headers,
        properties.message_id,
        trusted=True,
    )


@given(name=TEXT, kind=TEXT, subject=TEXT, content_type=TYPES, body=st.binary(max_size=60))
def test_an_event_is_admitted_with_the_attributes_and_the_body_it_was_received_with(
    name: str, kind: str, subject: str, content_type: str, body: bytes
) -> None:
    source = replace(GITHUB, id="header:x-id", type="header:x-kind", subject="header:x-subject")
    catalog = Catalog(1, {"acme": b"k" * 32}, {("acme", "code"): source}, {})
    texts = {"x-id": name, "x-kind": kind, "x-subject": subject}
    headers = {key: value.encode().decode("latin-1") for key, value in texts.items()}
    ((found, kept),) = receive(source, headers | {"content-type": content_type}, body, NOW, lambda: "fresh")

    (event,) = admit(redelivered(source, found, kept), catalog, NOW + timedelta(seconds=9))

    assert (name, kind, subject) == (found["id"], found["type"], found["subject"])
    assert (found, body) == (event.attributes, event.body)


def test_two_senders_behind_one_source_may_use_the_same_ids() -> None:
    catalog = Catalog(1, {"acme": b"k" * 32}, {("acme", OPEN.name): OPEN}, {})

    def fingerprint(origin: str) -> bytes:
        found = attributes(OPEN, **{**CE, "ce_source": origin})
        return admit(redelivered(OPEN, found, b""), catalog, NOW)[0].fingerprint

    assert fingerprint("/one") == fingerprint("/one") != fingerprint("/two") != fingerprint(OPEN.name)


def test_attributes_without_a_version_are_checked_again_and_again() -> None:
    for _ in range(2):
        check_attributes({"id": "1", "unversioned": "x"})
