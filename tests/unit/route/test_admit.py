from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit import admit
from pipeline.errors import Rejected
from schemas.catalog import Catalog
from schemas.message import Message, Opaque
from schemas.source import Source

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
CATALOG = Catalog(
    1,
    {"acme": b"k" * 32, "other": b"o" * 32},
    {
        ("acme", "orders"): Source("acme", "orders", "amqp"),
        ("acme", "ruled"): Source(
            "acme",
            "ruled",
            "amqp",
            id="/data/no",
            type="header:X-Type",
            subject="/data/who~1what",
            extensions={"region": "/r/0"},
        ),
        ("acme", "bound"): Source("acme", "bound", "amqp", users=("acme-shop", "acme-till")),
        ("acme", "tiny"): Source("acme", "tiny", "amqp", max_body=3),
        ("acme", "hooks"): Source("acme", "hooks", "token"),
        ("other", "orders"): Source("other", "orders", "amqp"),
    },
    {},
)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BINARY = {"cloudEvents:id": "e-1", "cloudEvents:type": "order.paid", "cloudEvents:subject": "s-1", "cloudEvents:source": "/up"}


def plain(body: bytes = b"{}", key: str = "acme.orders", **fields: object) -> Message:
    given_ = {"message_id": "e-1", "headers": {"subject": "s-1"}, "content_type": "application/json"} | fields
    return Message(key, body, **given_)


def reason(message: Message) -> str:
    with pytest.raises(Rejected) as rejected:
        admit(message, CATALOG, NOW)
    assert rejected.value.detail
    return rejected.value.reason


def test_a_plain_message_takes_its_attributes_from_the_properties_of_amqp() -> None:
    message = plain(b"\x00raw", type="order.paid", timestamp=1767225600, content_type="text/plain")

    (event,) = admit(message, CATALOG, NOW)

    assert {
        "id": "e-1",
        "source": "orders",
        "specversion": "1.0",
        "type": "order.paid",
        "subject": "s-1",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "text/plain",
    } == event.attributes
    assert b"\x00raw" == event.body


def test_what_a_plain_message_leaves_out_has_a_default() -> None:
    (event,) = admit(plain(content_type=None), CATALOG, NOW)

    assert ("message.received", "2026-01-02T03:04:05.678901Z", "application/octet-stream") == (
        event.attributes["type"],
        event.attributes["time"],
        event.attributes["datacontenttype"],
    )


@pytest.mark.parametrize("headers", [None, {}, {"subject": None}, {"subject": ""}, {"subject": b""}])
def test_a_missing_subject_is_the_name_of_the_source(headers) -> None:
    (event,) = admit(plain(headers=headers), CATALOG, NOW)

    assert "orders" == event.attributes["subject"]


def test_a_cloud_event_without_a_subject_has_the_name_of_the_source_too() -> None:
    headers = {name: value for name, value in BINARY.items() if name != "cloudEvents:subject"}

    (event,) = admit(plain(headers=headers), CATALOG, NOW)

    assert "orders" == event.attributes["subject"]


def test_the_reason_says_what_a_subject_is_that_is_no_text() -> None:
    for value, said in ((42, "a number"), ({"a": 1}, "a table"), (b"\xff", "is not UTF-8"), (True, "a boolean")):
        with pytest.raises(Rejected, match=f"the header subject .*{said}"):
            admit(plain(headers={"subject": value}), CATALOG, NOW)


def test_a_header_that_holds_text_as_bytes_is_text() -> None:
    (event,) = admit(plain(headers={"subject": "müller".encode(), "traceparent": 7}), CATALOG, NOW)

    assert "müller" == event.attributes["subject"]
    assert "traceparent" not in event.attributes


@pytest.mark.parametrize("trace", ["x" * 2049, "\x00", "\udcff", "00-nonsense", 7, None])
def test_a_trace_that_is_invalid_is_left_out_and_does_not_reject_the_message(trace) -> None:
    (event,) = admit(plain(headers={"subject": "s-1", "traceparent": trace}), CATALOG, NOW)

    assert "traceparent" not in event.attributes


def test_a_valid_trace_is_kept() -> None:
    for trace, state in ((TRACE, "vendor=opaque"), (TRACE.encode(), b"vendor=opaque")):
        (event,) = admit(plain(headers={"subject": "s-1", "traceparent": trace, "tracestate": state}), CATALOG, NOW)

        assert (TRACE, "vendor=opaque") == (event.attributes["traceparent"], event.attributes["tracestate"])


def test_the_trace_of_a_messages_headers_is_kept_unless_the_event_names_one_itself() -> None:
    other = TRACE.replace("4bf9", "4bf8")
    headers = {"cloudEvents:id": "1", "cloudEvents:source": "s", "cloudEvents:type": "t", "cloudEvents:specversion": "1.0"}
    (event,) = admit(plain(headers=headers | {"traceparent": TRACE}), CATALOG, NOW)
    (itself,) = admit(plain(headers=headers | {"traceparent": TRACE, "cloudEvents:traceparent": other}), CATALOG, NOW)

    assert (TRACE, other) == (event.attributes["traceparent"], itself.attributes["traceparent"])


def test_the_span_in_which_our_own_receiver_published_is_not_part_of_the_event() -> None:
    headers = {"cloudEvents:id": "1", "cloudEvents:source": "hooks", "cloudEvents:type": "t", "traceparent": TRACE}
    (event,) = admit(replace(plain(headers=headers), routing_key="acme.hooks", trusted=True), CATALOG, NOW)

    assert "traceparent" not in event.attributes


def test_a_source_that_is_bound_to_users_takes_their_messages() -> None:
    for user in ("acme-shop", "acme-till"):
        (event,) = admit(plain(key="acme.bound", others={"user_id": user}), CATALOG, NOW)
        assert "bound" == event.attributes["source"]


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
def test_binary_mode_is_read_under_both_prefixes_with_values_of_every_type(prefix) -> None:
    values = {
        "id": b"e-1",
        "type": "t",
        "subject": "s-1",
        "specversion": "1.0",
        "time": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        "count": 7,
        "flag": True,
        "nothing": None,
    }

    (event,) = admit(plain(headers={prefix + name: value for name, value in values.items()}), CATALOG, NOW)

    assert ("e-1", "2026-01-01T00:00:00+01:00", "7", "true") == tuple(
        event.attributes[n] for n in ("id", "time", "count", "flag")
    )
    assert "nothing" not in event.attributes


def test_the_source_attribute_is_the_one_that_was_proved_and_the_claimed_one_is_kept_beside_it() -> None:
    (event,) = admit(plain(headers=BINARY), CATALOG, NOW)

    assert ("orders", "/up") == (event.attributes["source"], event.attributes["origin"])


def test_a_redelivery_has_the_same_fingerprint_and_another_tenant_source_or_id_has_not() -> None:
    def fingerprint(message: Message) -> bytes:
        return admit(message, CATALOG, NOW)[0].fingerprint

    first = fingerprint(plain())

    assert first == fingerprint(plain(b"another body", headers={"subject": "another"}))
    others = [plain(message_id="e-2"), plain(key="other.orders"), plain(key="acme.ruled", body=b'{"data":{"who/what":"s"}}')]
    assert 4 == len({first, *map(fingerprint, others)})


def test_the_rules_of_a_source_overrule_what_the_message_says_where_they_find_something() -> None:
    body = b'{"data": {"no": 9007199254740993, "who/what": "order-9"}, "r": [1.10]}'

    (event,) = admit(plain(body, key="acme.ruled", headers={"x-type": "ruled", "subject": "s-1"}), CATALOG, NOW)

    assert ("9007199254740993", "ruled", "order-9", "1.10") == tuple(
        event.attributes[name] for name in ("id", "type", "subject", "region")
    )


def test_all_events_of_a_batch_are_admitted_or_none() -> None:
    good = '{"specversion":"1.0","id":"%d","type":"t","source":"s","subject":"x","data":{"n":%d}}'
    batch = f"[{good % (1, 1)}, {good % (2, 2)}]"

    events = admit(plain(batch.encode(), content_type="application/cloudevents-batch+json"), CATALOG, NOW)

    assert [("1", b'{"n":1}'), ("2", b'{"n":2}')] == [(event.id, event.body) for event in events]
    spoiled = batch.replace('"id":"1"', '"other":"x"', 1)
    assert "missing_id" == reason(plain(spoiled.encode(), content_type="application/cloudevents-batch+json"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (plain(key="nobody.orders"), "unknown_tenant"),
        (plain(key=""), "unknown_tenant"),
        (plain(key="acme"), "unknown_source"),
        (plain(key="acme.nothing"), "unknown_source"),
        (plain(key="acme.orders.more"), "unknown_source"),
        (plain(key="acme.hooks"), "wrong_kind"),
        (plain(trusted=True), "wrong_kind"),
        (plain(message_id=None), "missing_id"),
        (plain(message_id=""), "missing_id"),
        (plain(headers={"subject": 42}), "malformed"),
        (plain(headers={"subject": True}), "malformed"),
        (plain(headers={"subject": 0}), "malformed"),
        (plain(headers={"subject": {"a": 1}}), "malformed"),
        (plain(headers={"subject": []}), "malformed"),
        (plain(headers={"subject": b"\xff"}), "malformed"),
        (plain(headers={"subject": "a\ud800"}), "malformed"),
        (plain(headers={"subject": Opaque(b"F....")}), "malformed"),
        (plain(type="a\udcff"), "malformed"),
        (plain(b'{"data":{}}', key="acme.ruled", headers={"X-Type": 7}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:id": {"a": 1}}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:id": 1.5}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:subject": b"\xff"}), "malformed"),
        (plain(key="acme.bound"), "wrong_user"),
        (plain(key="acme.bound", others={"user_id": "other-shop"}), "wrong_user"),
        (plain(key="acme.bound", others={"user_id": ""}), "wrong_user"),
        (plain(key="acme.bound", others={"app_id": "acme-shop"}), "wrong_user"),
        (plain(b"1234", key="acme.tiny"), "too_large"),
        (plain(message_id="a\x00b"), "malformed"),
        (plain(message_id="a\ud800b"), "malformed"),
        (plain(message_id="a" * 2049), "malformed"),
        (plain(timestamp=10**15), "malformed"),
        (plain(timestamp=1767225600000), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:specversion": "0.3"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:time": "yesterday"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:time": "2026-01-01T00:00:00"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:time": "0001-01-01T00:00:00+23:59"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:bad-name": "x"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:list": ["x"]}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:subject": ["x"]}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:subject": 7}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:id": datetime(2026, 1, 1, tzinfo=UTC)}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:time": 1767225600}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents:data": "x"}), "malformed"),
        (plain(headers=BINARY | {"cloudEvents_headers": "x"}), "malformed"),
        (plain(headers=BINARY | {f"cloudEvents:a{n}": "x" for n in range(70)}), "malformed"),
    ],
)
def test_what_cannot_be_admitted_is_rejected_with_its_reason(message, expected) -> None:
    assert expected == reason(message)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(), st.datetimes())
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
names = st.one_of(st.text(), st.sampled_from([*BINARY, "subject", "cloudEvents_id", "cloudEvents:time", "traceparent"]))
types = st.sampled_from(["application/cloudevents+json", "application/cloudevents-batch+json", "text/plain", "", None])
bodies = st.one_of(st.binary(), st.text().map(lambda text: text.encode(errors="surrogatepass")), st.just(b"[" * 100_000))


@given(
    st.builds(
        Message,
        routing_key=st.sampled_from(["acme.orders", "acme.ruled", "acme.tiny"]),
        body=bodies,
        content_type=types,
        content_encoding=st.none() | st.text(),
        headers=st.none() | st.dictionaries(names, values, max_size=6),
        message_id=st.none() | st.text(),
        type=st.none() | st.text(),
        timestamp=st.none() | st.integers(0, 2**64 - 1),
    )
)
def test_whatever_arrives_is_admitted_or_rejected_and_an_admitted_body_is_what_arrived(message) -> None:
    try:
        events = admit(message, CATALOG, NOW)
    except Rejected:
        return
    for event in events:
        assert all(isinstance(value, str) for value in event.attributes.values())
        assert 16 == len(event.fingerprint) == len(event.chain_key)
    if "cloudevents" not in (message.content_type or ""):
        assert [message.body] == [event.body for event in events]
