"""Examining a message in a process of its own has the same result as examining it here."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.admit import admit
from pipeline.errors import Rejected
from schemas.blob import CLAIM, name
from schemas.catalog import Catalog
from schemas.event import Event
from schemas.message import Message, Opaque
from schemas.source import Source
from workers.ingest.examiner import Examiner
from workers.ingest.judged import Judged, rejected

CATALOG = Catalog(
    1,
    {"acme": b"k" * 32},
    {
        ("acme", "orders"): Source("acme", "orders", "amqp", secrets=("s3cret",)),
        ("acme", "hooks"): Source("acme", "hooks", "token", type="/type", extensions={"region": "header:X-Region"}),
    },
    {},
    frozenset({"acme"}),
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)

one = '{"specversion":"1.0","id":"%s","type":"t","source":"%s","subject":"x","data":{"n" :1.10}}'
texts = st.text(max_size=8)
headers = st.dictionaries(
    st.sampled_from(["subject", "X-Region", "cloudEvents:id", "cloudEvents:type", "cloudEvents:source", CLAIM]),
    texts | st.binary(max_size=8) | st.integers() | st.just(NOW) | st.builds(Opaque, st.binary(max_size=4)),
)
messages = st.builds(
    Message,
    st.sampled_from(["acme.orders", "acme.hooks", "acme.nothing", "nobody.orders"]),
    st.binary(max_size=20)
    | st.just(f"[{one % (1, '/up')},{one % (2, 'orders')}]".encode())
    | st.just((one % (3, "")).encode()),
    st.sampled_from(["application/cloudevents-batch+json", "application/cloudevents+json", "text/plain", None]),
    headers=headers,
    message_id=st.none() | texts,
    type=st.none() | texts,
    timestamp=st.none() | st.just(1_767_225_600),
    trusted=st.booleans(),
)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    examiner = Examiner()
    yield examiner
    examiner.close()


def here(message: Message) -> Judged:
    try:
        return Judged(message, message.size, 7, admit(message, CATALOG, NOW))
    except Rejected as error:
        return Judged(message, message.size, 7, refusal=rejected(error))


def timeless(judged: Judged) -> tuple[list[Event] | None, object]:
    """The result without times, because missing ones are filled in with the current time."""
    if judged.events is None:
        return None, judged.refusal
    return [replace(each, attributes={**each.attributes, "time": ""}) for each in judged.events], None


@given(messages)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_admitted_and_what_is_refused_is_the_same(examiner, message) -> None:
    examined = examiner.examine(message, CATALOG, 7)

    assert timeless(here(message)) == timeless(examined)
    assert 7 == examined.epoch


def test_a_large_body_and_a_claim_come_through(examiner) -> None:
    large = Message("acme.orders", b"x" * 1_000_000, message_id="1", headers={"subject": "s"})
    claim = {"cloudEvents:id": "1", "cloudEvents:subject": "s", CLAIM: name(large.body).claim}
    claimed = Message("acme.hooks", b"", headers=claim, trusted=True)

    (event,) = examiner.examine(large, CATALOG, 7).events or ()
    assert event.body is large.body
    assert timeless(here(claimed)) == timeless(examiner.examine(claimed, CATALOG, 7))


def test_a_process_that_starts_slowly_is_not_the_messages_fault(examiner, monkeypatch) -> None:
    slow = "import time; time.sleep(3); from workers.ingest.admit_child import main; main()"
    monkeypatch.setattr("workers.ingest.examiner.COMMAND", (sys.executable, "-c", slow))
    monkeypatch.setattr("workers.ingest.examiner.PATIENCE", 0.6)
    message = Message("acme.orders", b"x", message_id="1", headers={"subject": "s"})
    examiner.close()

    assert timeless(here(message)) == timeless(examiner.examine(message, CATALOG, 7))


def test_a_process_that_does_not_start_is_not_the_messages_fault(examiner, monkeypatch) -> None:
    monkeypatch.setattr("workers.ingest.examiner.COMMAND", (sys.executable, "-c", "import nothing.there"))
    message = Message("acme.orders", b"x", message_id="1", headers={"subject": "s"})
    examiner.close()

    with pytest.raises(OSError, match="does not start"):
        examiner.examine(message, CATALOG, 7)
    monkeypatch.undo()
    assert timeless(here(message)) == timeless(examiner.examine(message, CATALOG, 7))
