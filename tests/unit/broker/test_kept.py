from collections.abc import Set

from schemas.message import FIRST_USER, Message
from workers.amqp.confirm_window import Outgoing
from workers.amqp.kept import forwarded, kept, received, waves


def test_no_two_messages_of_one_subject_are_in_one_wave_and_one_of_unknown_subjects_is_alone() -> None:
    lanes = {"a1": {"a"}, "b1": {"b"}, "ab": {"a", "b"}, "c1": {"c"}, "?": set(), "c2": {"c"}, "a2": {"a"}}

    found = list(waves(list(lanes), lambda name: frozenset(lanes[name])))

    assert [["a1", "b1"], ["ab", "c1"], ["?"], ["c2", "a2"]] == found


def test_a_kept_message_comes_to_the_other_inbox_as_it_came_to_the_first() -> None:
    sent = Message(
        routing_key="acme.orders",
        body=b"{}",
        content_type="application/json",
        headers={"subject": "s", "x-delivery-count": 2},
        message_id="1",
        type="t",
        timestamp=7,
        others={"app_id": "shop", "delivery_mode": 1},
    )

    message, lanes = went_on(sent, b"\x01", b"\x02")

    assert ("waxseal.in", "acme.orders") == (message.exchange, message.routing_key)
    assert {"01", "02"} == lanes
    again = received(message)
    assert {"subject": "s"} == again.headers
    assert {"app_id": "shop", "delivery_mode": 2} == again.others
    assert (sent.body, "1", "t", 7, False) == (again.body, again.message_id, again.type, again.timestamp, again.trusted)


def test_the_user_that_a_broker_has_checked_goes_along_by_the_exchange_that_only_our_processes_publish_to() -> None:
    message, _ = went_on(Message("acme.orders", b"{}", others={"user_id": "shop"}))

    assert "waxseal.received" == message.exchange
    assert {FIRST_USER: "shop"} == message.properties.headers
    again = received(message)
    assert ({}, "shop", False) == (again.headers, again.others["user_id"], again.trusted)


def went_on(message: Message, *lanes: bytes) -> tuple[Outgoing, Set[str]]:
    """The message from the tenant's queue, as the other inbox gets it; and its lanes."""
    waiting = kept(message, lanes)
    assert ("", "waxseal.moving.acme") == (waiting.exchange, waiting.routing_key)
    return forwarded(waiting.body, waiting.properties)
