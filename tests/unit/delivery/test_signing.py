import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from pipeline.chain import encode
from pipeline.delivery.signing import headers, key_of, sign, webhook_id
from schemas.blob import LARGEST_INLINE
from schemas.delivery import Delivery
from schemas.trace import TraceContext
from support.sending import ATTRIBUTES as SAMPLE

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
RANDOM = bytes(range(1, 25))
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

ATTRIBUTES = SAMPLE | {"id": "order-1"}
# What an attribute's value may be (pipeline.formats.cloudevents.check): any text without NUL and lone surrogates.
VALUES = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=50)


def delivery(attributes: dict[str, str] | None = None, body: bytes = b"{}", seq: int = 1) -> Delivery:
    now = datetime.now(UTC)
    return Delivery(
        id=7,
        endpoint_id=1,
        tenant="acme",
        attempts=0,
        chain_id=UUID(int=5),
        seq=seq,
        hash=b"h" * 32,
        prev_hash=b"p" * 32 if seq else None,
        attributes=encode(ATTRIBUTES | (attributes or {})),
        body=body,
        fingerprint=b"f" * 16,
        created_at=now,
        lease=UUID(int=1),
    )


def of(attributes: dict[str, str] | None = None, secrets: tuple[str, ...] = (SECRET,), **rest: object) -> dict[str, str]:
    keys = [key_of(secret) for secret in secrets]
    return headers(delivery(attributes, **rest), keys, "waxseal/1.2", datetime.now(UTC), RANDOM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("secret", "id", "timestamp", "body", "signature"),
    [
        (
            SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            OTHER,
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)
def test_the_published_vectors_are_signed_alike(secret, id, timestamp, body, signature) -> None:
    assert signature == sign([key_of(secret)], id, timestamp, body)


@pytest.mark.parametrize("secret", [SECRET, OTHER])
@pytest.mark.parametrize("body", ['{"käse": 1}'.encode(), b'"' + b"x" * LARGEST_INLINE + b'"'], ids=["small", "large"])
def test_the_official_library_accepts_the_signature_under_either_secret(secret, body) -> None:

    sent = of(secrets=(SECRET, OTHER), body=body)

    assert 2 == len(sent["webhook-signature"].split(" "))
    Webhook(secret).verify(body, sent)


def test_the_official_library_refuses_another_body_another_id_and_another_secret() -> None:
    sent = of()

    for secret, body, received in (
        (SECRET, b"{} ", sent),
        (SECRET, b"{}", sent | {"webhook-id": "order-2"}),
        (OTHER, b"{}", sent),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, received)


@given(st.binary(max_size=200), st.binary(min_size=24, max_size=64))
def test_any_body_under_any_key_is_signed_as_the_official_library_signs_it(body, key) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return  # the official library accepts text only

    assert Webhook(secret).sign("msg_1", now, text) == sign([key], "msg_1", int(now.timestamp()), body)


def test_a_secret_may_come_without_padding_and_without_prefix() -> None:
    padded = "whsec_" + base64.b64encode(b"k" * 25).decode()

    assert [b"k" * 25] * 3 == [key_of(padded), key_of(padded.rstrip("=")), key_of(padded.removeprefix("whsec_"))]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", "whsec_é", "whsec_abcde"])
def test_what_is_no_secret_is_refused_without_being_shown(secret) -> None:
    with pytest.raises(ValueError, match=r"^an endpoint's secret is whsec_ followed by base64$"):
        key_of(secret)


def test_without_secrets_nothing_is_signed() -> None:
    assert "webhook-signature" not in of(secrets=())


@pytest.mark.parametrize("id", ["order-1", "a", "A_b-9" * 40])
def test_the_webhook_id_is_the_events_id_where_a_header_can_carry_it(id) -> None:
    assert id == webhook_id(id, b"f" * 16)


@pytest.mark.parametrize("id", ["a.b", "a b", "ä", "a\r\nx: y", "a" * 201, "a\n", ""])
def test_another_id_is_replaced_by_the_fingerprint_which_is_the_same_on_every_try(id) -> None:
    assert "evt_" + "66" * 16 == webhook_id(id, b"f" * 16)


def test_every_attribute_is_a_header_and_the_content_type_is_the_body_s() -> None:
    sent = of({"dataschema": "https://example.com/s", "customer": "42"})

    assert {
        "content-type": "application/json",
        "user-agent": "waxseal/1.2",
        "webhook-id": "order-1",
        "ce-id": "order-1",
        "ce-source": "shop",
        "ce-specversion": "1.0",
        "ce-type": "order.paid",
        "ce-subject": "order%201",
        "ce-time": "2026-01-01T00:00:00Z",
        "ce-dataschema": "https://example.com/s",
        "ce-customer": "42",
        "ce-tenant": "acme",
        "ce-chain": "00000000000000000000000000000005",
        "ce-chainseq": "1",
        "ce-chainhash": "68" * 32,
        "ce-prevhash": "70" * 32,
    } == {name: value for name, value in sent.items() if name not in {"webhook-timestamp", "webhook-signature", "traceparent"}}
    assert abs(int(sent["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 5


def test_the_first_entry_of_a_chain_has_no_previous_hash() -> None:
    assert "ce-prevhash" not in of(seq=0)


def test_an_event_cannot_overrule_what_the_ledger_says() -> None:
    forged = {"tenant": "x", "chain": "x", "chainseq": "x", "chainhash": "x", "prevhash": "x"}

    assert of() | {"traceparent": ""} == of(forged) | {"traceparent": ""}


@given(st.dictionaries(st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True), VALUES, max_size=5), VALUES, VALUES)
def test_no_attribute_can_inject_a_header(extensions, id, content_type) -> None:
    attributes = {**extensions, "id": id or "x", "datacontenttype": content_type or "x"}

    for name, value in of(attributes).items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[ -~]+", value) or value == ""


@given(VALUES)
def test_an_escaped_value_is_read_back_as_it_was(value) -> None:
    sent = of({"note": value})["ce-note"]

    assert value == unquote(sent, errors="strict")
    assert not re.search(r'[^!-~]|"', sent)


def test_escapes_are_those_of_the_cloudevents_binding() -> None:
    assert "Euro%20%E2%82%AC%20%F0%9F%98%80" == of({"note": "Euro € 😀"})["ce-note"]  # its own example, §3.1.3.2
    assert "%22100%25%22/a?b=c&d~e" == of({"note": '"100%"/a?b=c&d~e'})["ce-note"]


@pytest.mark.parametrize("content_type", ["", "json", "text/plain\r\nx: y", "text/plain; charset=ä"])
def test_an_invalid_content_type_becomes_plain_bytes(content_type) -> None:
    assert "application/octet-stream" == of({"datacontenttype": content_type})["content-type"]


def test_a_trace_is_continued_with_a_span_of_its_own() -> None:
    found = of({"traceparent": PARENT, "tracestate": "vendor=opaque"})

    assert f"00-4bf92f3577b34da6a3ce929d0e0e4736-{RANDOM[16:].hex()}-01" == found["traceparent"]
    assert "vendor=opaque" == found["tracestate"]
    assert of({"traceparent": PARENT[:-2] + "00"})["traceparent"].endswith("-00")
    assert "tracestate" not in of({"traceparent": PARENT})
    assert PARENT == found["ce-traceparent"]


def test_a_trace_of_a_later_version_is_continued_as_far_as_it_is_known() -> None:
    later = of({"traceparent": "cc" + PARENT[2:-2] + "fd-what-comes"})

    assert of({"traceparent": PARENT})["traceparent"] == later["traceparent"]


def test_an_attempt_that_is_recorded_names_its_span() -> None:
    recorded = replace(delivery({"traceparent": PARENT}), trace=TraceContext("a" * 32, "b" * 16, sampled=False, state="c=d"))
    found = headers(recorded, [], "waxseal/1.2", datetime.now(UTC), RANDOM)

    assert (f"00-{'a' * 32}-{'b' * 16}-00", "c=d") == (found["traceparent"], found["tracestate"])


@pytest.mark.parametrize("given", ["", "x", PARENT + "-more", "ff" + PARENT[2:]])
def test_an_invalid_trace_is_replaced_by_a_new_one(given) -> None:
    found = of({"traceparent": given, "tracestate": "vendor=opaque"})

    assert f"00-{RANDOM[:16].hex()}-{RANDOM[16:].hex()}-01" == found["traceparent"] == of()["traceparent"]
    assert "tracestate" not in found


def test_attributes_are_read_as_they_were_hashed() -> None:
    assert ATTRIBUTES == json.loads(delivery().attributes)
