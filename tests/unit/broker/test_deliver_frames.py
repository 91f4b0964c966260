"""Messages read from the wire equal those that pika reads, however the stream is split."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec
from pika.exceptions import InvalidFrameError

from schemas.message import OTHERS, Message, Opaque
from workers.amqp import header_tables
from workers.amqp.deliver_frames import Deliveries, message_of
from workers.amqp.topology import RECEIVED

CHANNEL = 3
header_tables.install()

names = st.text(max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.integers(0, 2**37).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
    | st.decimals(-1000, 1000, places=2)
    | st.builds(lambda raw: Opaque(b"x" + len(raw).to_bytes(4, "big") + raw), st.binary(max_size=4))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=5
)
shorts = st.text(max_size=20)
octets = st.integers(0, 255)
SHORTS = ("content_type", "content_encoding", "message_id", "type", *OTHERS[2:])
properties = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(names, values, max_size=5),
        "timestamp": st.integers(0, 2**64 - 1),
        "delivery_mode": octets,
        "priority": octets,
        **dict.fromkeys(SHORTS, shorts),
    },
).map(lambda given_: BasicProperties(**given_))
deliveries = st.tuples(
    properties, st.binary(max_size=40), st.integers(1, 2**63), st.booleans(), st.sampled_from(["", RECEIVED]) | shorts, shorts
)
OTHER_FRAMES = (
    frame.Heartbeat().marshal(),
    frame.Method(CHANNEL, spec.Basic.CancelOk("tag")).marshal(),
    frame.Method(CHANNEL + 1, spec.Basic.Deliver("tag", 1, False, "", "")).marshal(),
    frame.Header(CHANNEL + 1, 1, BasicProperties()).marshal(),
    frame.Body(CHANNEL + 1, b"x").marshal(),
    frame.Method(0, spec.Connection.Blocked("memory")).marshal(),
    frame.Method(CHANNEL, spec.Basic.Return(312, "NO_ROUTE", "", "")).marshal(),
    frame.Header(CHANNEL, 1, BasicProperties()).marshal(),
    frame.Body(CHANNEL, b"returned").marshal(),
)


CONSUMER = "ctag1.x"
EMPTY = frame.Header(CHANNEL, 0, BasicProperties()).marshal()


def read_by_pika(encoded: bytes, place: str, body: bytes, trusted: bool) -> Message:
    found = vars(BasicProperties().decode(encoded))
    given_ = {name: value for name, value in found.items() if value is not None}
    others = {name: given_.pop(name) for name in OTHERS if name in given_}
    return Message(place, body, trusted=trusted, others=others, **given_)


def encoded(properties: BasicProperties) -> bytes:
    return b"".join(properties.encode())


def frames_of(delivery: tuple[Any, ...], body_frame: int) -> bytes:
    found, body, tag, redelivered, exchange, key = delivery
    pieces = [
        frame.Method(CHANNEL, spec.Basic.Deliver(CONSUMER, tag, redelivered, exchange, key)).marshal(),
        frame.Header(CHANNEL, len(body), found).marshal(),
    ]
    pieces += [frame.Body(CHANNEL, body[at : at + body_frame]).marshal() for at in range(0, len(body), body_frame)]
    return b"".join(pieces)


@given(properties)
def test_properties_are_what_pika_reads(found) -> None:
    raw = encoded(found)

    assert read_by_pika(raw, "k", b"b", True) == message_of("k", b"b", raw, trusted=True)


def test_a_value_that_pika_writes_for_every_type_is_read() -> None:
    headers = {"d": Decimal("1.10"), "t": datetime(2026, 1, 1, tzinfo=UTC), "n": {"a": [1, None, {"b": b"\xff"}]}, "f": 1.5}

    raw = encoded(BasicProperties(headers=headers))

    assert read_by_pika(raw, "", b"", False) == message_of("", b"", raw, trusted=False)


@given(
    st.lists(st.tuples(deliveries, st.lists(st.sampled_from(OTHER_FRAMES), max_size=3)), max_size=4),
    st.integers(1, 20),
    st.integers(1, 200),
)
def test_a_stream_is_taken_apart_however_it_is_cut(sent, body_frame, cut) -> None:
    received: list[tuple[int, bool, Message]] = []
    others: list[bytes] = []
    stream = Deliveries(CHANNEL, {CONSUMER.encode(): lambda *each: received.append(each)}, others.append)
    raw = b"".join(frames_of(delivery, body_frame) + b"".join(between) for delivery, between in sent)

    told = [stream.feed(raw[at : at + cut]) for at in range(0, len(raw), cut)]

    expected = [
        (tag, redelivered, read_by_pika(encoded(found), key, body, exchange == RECEIVED))
        for (found, body, tag, redelivered, exchange, key), _ in sent
    ]
    assert expected == received
    assert [each for _, between in sent for each in between] == others
    assert any(told) == bool(sent)


def test_a_frame_with_a_wrong_end_is_left_to_pika_which_refuses_it() -> None:
    others: list[bytes] = []
    spoiled = frame.Method(CHANNEL, spec.Basic.Deliver(CONSUMER, 1, False, "", "k")).marshal()[:-1] + b"\x00"

    assert not Deliveries(CHANNEL, {CONSUMER.encode(): lambda *_: None}, others.append).feed(spoiled)
    assert [spoiled] == others


def test_a_receiver_cannot_read_from_its_connection() -> None:
    raw = b"".join((frame.Method(CHANNEL, spec.Basic.Deliver(CONSUMER, 1, False, "", "k")).marshal(), EMPTY))
    stream = Deliveries(CHANNEL, {CONSUMER.encode(): lambda *_: stream.feed(b"later")}, lambda _frame: None)

    with pytest.raises(RuntimeError, match="out of order"):
        stream.feed(raw)


def test_bytes_that_are_no_frame_end_the_connection_instead_of_being_collected_for_ever() -> None:
    others: list[bytes] = []
    stream = Deliveries(CHANNEL, {}, others.append, 4096)
    largest = frame.Body(CHANNEL, bytes(4088)).marshal()

    assert not stream.feed(largest[:100])
    assert not stream.feed(largest[100:])
    assert [largest] == others
    with pytest.raises(InvalidFrameError, match="4097 bytes, 4096 at most"):
        stream.feed(frame.Body(CHANNEL, bytes(4089)).marshal()[:100])


def test_each_consumer_has_a_receiver_of_its_own_and_one_without_is_left_to_pika() -> None:
    received: list[tuple[str, int]] = []
    others: list[bytes] = []
    receivers = {
        name.encode(): lambda tag, _redelivered, _message, name=name: received.append((name, tag)) for name in ("inbox", "kept")
    }
    stream = Deliveries(CHANNEL, receivers, others.append)
    sent = [
        b"".join((frame.Method(CHANNEL, spec.Basic.Deliver(name, tag, False, "", "k")).marshal(), EMPTY))
        for tag, name in enumerate(("inbox", "kept", "another", "inbox"), 1)
    ]

    assert [True, True, False, True] == [stream.feed(each) for each in sent]
    assert [("inbox", 1), ("kept", 2), ("inbox", 4)] == received
    assert sent[2] == b"".join(others)
