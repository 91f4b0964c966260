"""A message becomes a dead letter, and the same message again."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties

from pipeline.bury import dead_letter_of
from pipeline.errors import Unreadable
from pipeline.formats.dead_letter import message_of, tag, untag
from schemas.message import FIRST_USER, OTHERS, Message, Opaque
from workers.amqp.kept import outgoing

words = st.text(st.characters(), max_size=10) | st.sampled_from(["", "\x00", "\udcff", "$bytes"])
headers = st.dictionaries(
    words,
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | words | st.binary(max_size=5),
    max_size=4,
)
messages = st.builds(
    Message,
    words,
    st.binary(max_size=20),
    st.none() | words,
    st.none() | words,
    headers,
    st.none() | words,
    st.none() | words,
    st.none() | st.integers(0, 2**64 - 1),
    st.booleans(),
    st.dictionaries(st.sampled_from(OTHERS), words | st.integers(0, 255), max_size=3),
)


def stored(text: str) -> str:
    """The text as a text column stores it."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


@given(messages)
def test_a_dead_letter_becomes_the_message_it_was(message: Message) -> None:
    letter = dead_letter_of(message, "admit", "malformed", "x")
    kept = untag(json.loads(json.dumps(tag(letter.headers), allow_nan=False)))

    assert message == message_of(stored(letter.routing_key or ""), kept, letter.body)


def test_a_dead_letter_says_what_can_be_read_of_its_message() -> None:
    message = Message("acme.shop", b"{}", "application/json", None, None, "e-1", "t", 7, trusted=True)
    letter = dead_letter_of(message, "append", "poison", "cannot be stored", "22021")

    assert ("append", "poison", "cannot be stored", "22021") == (letter.stage, letter.reason, letter.detail, letter.error)
    assert ("acme", "shop", "e-1", "acme.shop", "application/json") == (
        letter.tenant,
        letter.source,
        letter.event_id,
        letter.routing_key,
        letter.content_type,
    )
    properties = {"content_type": "application/json", "message_id": "e-1", "type": "t", "timestamp": 7}
    assert {"headers": {}, "properties": properties, "trusted": True} == letter.headers


def test_a_dead_letter_from_before_other_properties_were_kept_is_a_message_too() -> None:
    kept = {"headers": {"subject": "s"}, "properties": {"message_id": "e-1"}, "trusted": False}

    assert Message("a.b", b"x", headers={"subject": "s"}, message_id="e-1", others={}) == message_of("a.b", kept, b"x")


@pytest.mark.parametrize(
    "properties", [{"unheard": "of"}, {"u" * 100_000: "of"}, {"headers": {}}, 7, "text", [["priority"]], None]
)
def test_what_no_message_had_is_not_made_into_one(properties: object) -> None:
    with pytest.raises(Unreadable) as refused:
        message_of("a.b", {"headers": {}, "properties": properties, "trusted": False}, b"x")

    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": 1},
        {"headers": [["a", 1]]},
        {"trusted": "no"},
        {"routing_key": 5},
        {"routing_key": None},
        {"properties": {"message_id": 5}},
        {"properties": {"timestamp": True}},
    ],
)
def test_a_value_of_a_type_that_no_message_has_is_unreadable(changed: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        message_of("a.b", {"headers": {}, "properties": {}, "trusted": False} | changed, b"x")


def test_a_message_of_a_user_goes_out_by_our_own_exchange_with_the_users_name() -> None:
    headers = {"subject": "s", FIRST_USER: "forged"}
    message = Message("acme.shop", b"body", headers=headers, others={"user_id": "shop"})

    sent = outgoing(message)

    assert ("waxseal.received", "acme.shop", None) == (sent.exchange, sent.routing_key, sent.properties.user_id)
    assert {"subject": "s", FIRST_USER: "shop"} == sent.properties.headers
    assert "forged" == headers[FIRST_USER]


@pytest.mark.parametrize(("trusted", "exchange"), [(False, "waxseal.in"), (True, "waxseal.received")])
def test_a_message_goes_out_by_the_exchange_that_it_came_through_and_durably(trusted: bool, exchange: str) -> None:
    values = {"a": b"\xff", "b": Decimal("0.5"), "c": datetime(2026, 1, 1, tzinfo=UTC), "d": Opaque(b"V")}
    others = {
        "delivery_mode": 1,
        "priority": 9,
        "correlation_id": "c-1",
        "reply_to": "answers",
        "expiration": "60000",
        "user_id": "shop",
        "app_id": "till",
        "cluster_id": "x",
    }
    if not trusted:
        del others["user_id"]
    headers = values | {"x-delivery-count": 3}
    message = Message("acme.shop", b"body", "text/plain", "gzip", headers, "e-1", "t", 7, trusted, others)
    sent = outgoing(message)

    assert (exchange, "acme.shop", b"body", True) == (sent.exchange, sent.routing_key, sent.body, sent.mandatory)
    assert (
        BasicProperties(
            content_type="text/plain",
            content_encoding="gzip",
            headers=values,
            message_id="e-1",
            type="t",
            timestamp=7,
            delivery_mode=2,
            priority=9,
            correlation_id="c-1",
            reply_to="answers",
            app_id="till",
            cluster_id="x",
        )
        == sent.properties
    )
