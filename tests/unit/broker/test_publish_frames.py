"""Publish frames, compared with pika's."""

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from workers.amqp.confirm_window import Outgoing
from workers.amqp.publish_frames import encoded

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": TEXT,
        "headers": st.dictionaries(TEXT, TEXT | st.text("x\u20ac", min_size=300, max_size=3000), max_size=8),
        "delivery_mode": st.sampled_from([1, 2]),
        "message_id": TEXT,
    },
)


def by_pika(channel: int, message: Outgoing, frame_max: int) -> bytes:
    method = spec.Basic.Publish(exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory)
    most = frame_max - 8
    pieces = [message.body[at : at + most] for at in range(0, len(message.body), most)]
    frames = [frame.Method(channel, method), frame.Header(channel, len(message.body), message.properties)]
    return b"".join(one.marshal() for one in [*frames, *(frame.Body(channel, piece) for piece in pieces)])


@given(
    channel=st.integers(1, 65535),
    exchange=TEXT,
    key=TEXT,
    body=st.binary() | st.sampled_from([b"x" * 4088, b"x" * 4089, b"x" * 9000]),
    properties=PROPERTIES,
    mandatory=st.booleans(),
)
def test_a_message_has_the_bytes_that_pika_gives_it(
    channel: int, exchange: str, key: str, body: bytes, properties: dict[str, Any], mandatory: bool
) -> None:
    message = Outgoing(exchange, key, body, pika.BasicProperties(**properties), mandatory)
    try:
        frames = encoded(channel, message, 4096)
    except ValueError:
        assert len(frame.Header(channel, len(body), message.properties).marshal()) > 4096
    else:
        assert frames is not None
        assert by_pika(channel, message, 4096) == b"".join(frames)


@pytest.mark.parametrize(
    "properties", [{"priority": 0}, {"type": "t"}, {"timestamp": 1}, {"headers": {"n": 1}}, {"headers": {"n": None}}]
)
def test_other_properties_are_left_to_pika(properties: dict[str, Any]) -> None:
    assert encoded(1, Outgoing("x", "y", b"", pika.BasicProperties(**properties)), 4096) is None


@pytest.mark.parametrize(
    "properties", [{"message_id": "x" * 256}, {"headers": {"x" * 256: "y"}}, {"headers": {"x": "y" * 4096}}]
)
def test_what_does_not_fit_is_an_error(properties: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fit|256"):
        encoded(1, Outgoing("x", "y", b"", pika.BasicProperties(**properties)), 4096)
