"""Stripe, Slack, Shopify and Twilio: their published vectors, or vectors derived from their libraries' own tests."""

import hmac
import json
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest

from pipeline.receive import receive
from pipeline.sources import KINDS, PATH, check
from schemas.source import Source
from support.kinds import SHOPIFY_VECTORS, SLACK_BODY, SLACK_KEY, SLACK_SENT, SLACK_SIGNATURE, Headers, at, source, verdict

FORM = "application/x-www-form-urlencoded"


def described(a_source: Source, headers: Headers, body: bytes) -> Headers:
    ((attributes, kept),) = receive(a_source, headers, body, at(1_800_000_000), lambda: "fresh")
    assert body == kept
    return attributes


def told(attributes: Headers) -> tuple[str, str, str, str]:
    return attributes["id"], attributes["type"], attributes["subject"], attributes["time"]


ARRIVAL = "2027-01-15T08:00:00.000000Z"

# Stripe publishes no vectors: these are computed from the constants of its Python library's own tests.

STRIPE = source("stripe", "whsec_test_secret")
STRIPE_BODY = (
    b'{\n  "id": "evt_test_webhook",\n  "object": "event",\n'
    b'  "data": { "object": { "id": "rdr_123", "object": "terminal.reader" } }\n}'
)
STRIPE_SENT = 1700000000
STRIPE_V1 = "3bfab77baf5f7b6991a46c9b53b6547d7afc56148b10468fcad9f35c1992ffbd"
WRONG = "0" * 64


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"t={STRIPE_SENT},v1={STRIPE_V1}", "verified"),
        (f"t={STRIPE_SENT},v1={WRONG},v1={STRIPE_V1},v0=6ffbb59b2300aae63f272406069a9788598b792a", "verified"),
        (f"v1={STRIPE_V1},t={STRIPE_SENT}", "verified"),
        (f"t={STRIPE_SENT}, v1={STRIPE_V1}", "verified"),
        (f"t={STRIPE_SENT},v1={WRONG}", "signature"),
        (f"t={STRIPE_SENT},v1={STRIPE_V1[:-1]}", "signature"),
        (f"t={STRIPE_SENT},v1=x\u00e9", "signature"),
        (f"t={STRIPE_SENT + 1},v1={STRIPE_V1}", "signature"),
        (f"t={STRIPE_SENT},v0={STRIPE_V1}", "malformed"),
        (f"t={STRIPE_SENT},t={STRIPE_SENT},v1={STRIPE_V1}", "malformed"),
        (f"t=Infinity,v1={STRIPE_V1}", "malformed"),
        (f"t= {STRIPE_SENT},v1={STRIPE_V1}", "malformed"),
        (f"v1={STRIPE_V1}", "malformed"),
        (f"t={STRIPE_SENT}" + f",v1={STRIPE_V1}" * 20, "malformed"),
        ("", "malformed"),
    ],
)
def test_a_webhook_of_stripe_is_verified_by_any_v1_of_its_header(header: str, expected: str) -> None:
    assert expected == verdict(STRIPE, {"stripe-signature": header}, STRIPE_BODY, at(STRIPE_SENT))


def test_stripes_other_vector_is_verified_and_its_secret_is_used_whole() -> None:
    header = {"stripe-signature": "t=12345,v1=07b1ede164afb7b5de91267ffa656f568c65d6e0783ce0ac55ee094643578eda"}

    assert "verified" == verdict(STRIPE, header, STRIPE_BODY, at(12345))
    assert "signature" == verdict(replace(STRIPE, secrets=("test_secret",)), header, STRIPE_BODY, at(12345))
    assert "signature" == verdict(STRIPE, header, STRIPE_BODY + b" ", at(12345))


def test_an_event_of_stripe_says_what_it_is() -> None:
    event = {"id": "evt_1", "type": "charge.paid", "created": 1700000000, "data": {"object": {"id": "ch_9"}}}

    assert ("evt_1", "charge.paid", "ch_9", "2023-11-14T22:13:20Z") == told(described(STRIPE, {}, json.dumps(event).encode()))


def test_a_thin_event_of_stripe_says_what_it_is() -> None:
    event = {
        "id": "evt_2",
        "type": "v1.billing.meter",
        "created": "2026-09-17T06:20:52.246Z",
        "related_object": {"id": "mtr_1"},
    }

    found = told(described(STRIPE, {}, json.dumps(event).encode()))

    assert ("evt_2", "v1.billing.meter", "mtr_1", "2026-09-17T06:20:52.246Z") == found


def test_a_stripe_body_that_is_not_an_event_is_taken_as_it_is() -> None:
    assert ("fresh", "shop.received", "shop", ARRIVAL) == told(described(STRIPE, {}, b'{"created": "soon", "data": []}'))


# Slack

SLACK = source("slack", SLACK_KEY)


def slack(signature: str = SLACK_SIGNATURE, sent: object = SLACK_SENT) -> Headers:
    return {"x-slack-signature": signature, "x-slack-request-timestamp": str(sent)}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (slack(), "verified"),
        (slack(SLACK_SIGNATURE[:-1] + "4"), "signature"),
        (slack(sent=SLACK_SENT + 1), "signature"),
        (slack(SLACK_SIGNATURE.replace("v0", "v1")), "malformed"),
        (slack(SLACK_SIGNATURE.upper()), "malformed"),
        (slack(f"{SLACK_SIGNATURE}, {SLACK_SIGNATURE}"), "malformed"),
        (slack(sent="now"), "malformed"),
        ({"x-slack-signature": SLACK_SIGNATURE}, "malformed"),
        ({}, "malformed"),
    ],
)
def test_a_request_of_slack_is_verified_by_its_published_vector(headers: Headers, expected: str) -> None:
    assert expected == verdict(SLACK, headers, SLACK_BODY, at(SLACK_SENT))


def test_a_body_of_slack_that_is_not_utf8_can_be_signed() -> None:
    mac = hmac.digest(SLACK.secrets[0].encode(), b"v0:%d:\xff" % SLACK_SENT, "sha256").hex()

    assert "verified" == verdict(SLACK, slack(f"v0={mac}"), b"\xff", at(SLACK_SENT))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"event_id": "Ev1", "event_time": 1234567890, "event": {"type": "message", "channel": "C1"}, "team_id": "T1"},
            ("Ev1", "message", "C1", "2009-02-13T23:31:30Z"),
        ),
        (
            {"event_id": "Ev2", "event": {"type": "channel_created", "channel": {"id": "C2"}}},
            ("Ev2", "channel_created", "C2", 0),
        ),
        (
            {"event_id": "Ev3", "event": {"type": "reaction_added", "item": {"channel": "C3"}}},
            ("Ev3", "reaction_added", "C3", 0),
        ),
        ({"event_id": "Ev4", "event": {"type": "team_join", "user": {"id": "U4"}}}, ("Ev4", "team_join", "U4", 0)),
        ({"event_id": "Ev5", "event": {"type": "tokens_revoked"}, "team_id": "T5"}, ("Ev5", "tokens_revoked", "T5", 0)),
        ({"event_id": "Ev6", "event": [], "type": "odd"}, ("Ev6", "odd", "shop", 0)),
    ],
)
def test_an_event_of_slack_says_what_it_is(message: dict[str, Any], expected: tuple[object, ...]) -> None:
    found = told(described(SLACK, slack(), json.dumps(message).encode()))

    assert (*expected[:3], expected[3] or ARRIVAL) == found


def test_a_slash_command_says_what_it_is() -> None:
    trigger = "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"

    found = told(described(SLACK, slack() | {"content-type": FORM}, SLACK_BODY))

    assert (trigger, "slash_command", "G8PSS9T3V", ARRIVAL) == found


def test_an_interaction_says_what_it_is() -> None:
    payload = {"type": "block_actions", "trigger_id": "12.3", "user": {"id": "U1"}, "channel": {"id": "C1"}}
    body = urlencode({"payload": json.dumps(payload)}).encode()

    assert ("12.3", "block_actions", "C1", ARRIVAL) == told(described(SLACK, {"content-type": f"{FORM}; charset=utf-8"}, body))


def test_what_slack_gives_no_id_gets_one_of_what_was_signed() -> None:
    body = b'{"type": "app_rate_limited", "team_id": "T1"}'
    first, again, later = (described(SLACK, slack(sent=sent), body)["id"] for sent in (1, 1, 2))

    assert first == again != later


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"type": "url_verification", "token": "x", "challenge": "3eZbrw1aB"}', b"3eZbrw1aB"),
        (b'{"type": "event_callback", "event": {"text": "url_verification"}, "challenge": "no"}', None),
        (b'{"type": "url_verification", "challenge": {"no": 1}}', b""),
        (b'{"type": "url_verification", "challenge": "' + b"x" * 513 + b'"}', None),
        (b"url_verification", None),
        (b'{"type": "event_callback"}', None),
    ],
)
def test_slack_is_answered_with_its_challenge(body: bytes, expected: bytes | None) -> None:
    greet = KINDS["slack"].greet
    assert greet is not None
    reply = greet({}, body)

    assert expected == (None if reply is None else reply.body)
    assert reply is None or (200, b"text/plain") == (reply.status, reply.content_type)


@pytest.mark.parametrize(("secret", "body", "signature"), SHOPIFY_VECTORS)
def test_a_webhook_of_shopify_is_verified(secret: str, body: bytes, signature: str) -> None:
    def tried(header: str, content: bytes = body) -> str:
        return verdict(source("shopify", secret), {"x-shopify-hmac-sha256": header}, content, at(0))

    assert "verified" == tried(signature)
    assert "signature" == tried(signature, body + b" ")
    assert "signature" == tried("A" + signature[1:])
    assert "malformed" == tried("")
    assert "malformed" == tried("not base64")
    assert "malformed" == tried(f"{signature}, {signature}")


ORDER = b'{"id": 820982911946154508, "admin_graphql_api_id": "gid://shopify/Order/1"}'
SHOPIFY = source("shopify", "secret")
SHOPIFY_HEADERS = {
    "x-shopify-topic": "orders/create",
    "x-shopify-shop-domain": "acme.myshopify.com",
    "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
    "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    "x-shopify-triggered-at": "2026-03-29T18:00:27.877041743Z",
}


def test_a_webhook_of_shopify_says_what_it_is() -> None:
    found = described(SHOPIFY, SHOPIFY_HEADERS, ORDER)

    assert found["id"].startswith("98880550-7158-44d4-b7cd-2c97c8a091b5-")
    assert ("orders/create", "orders/820982911946154508", "2026-03-29T18:00:27.877041743Z") == told(found)[1:]
    assert "acme.myshopify.com" == found["shopdomain"]


def test_a_webhook_of_shopify_keeps_its_id_when_it_is_sent_again_and_shares_it_with_no_other() -> None:
    first = described(SHOPIFY, SHOPIFY_HEADERS, ORDER)["id"]

    assert first == described(SHOPIFY, SHOPIFY_HEADERS | {"x-shopify-webhook-id": "another"}, ORDER)["id"]
    assert first != described(SHOPIFY, SHOPIFY_HEADERS | {"x-shopify-topic": "orders/updated"}, ORDER)["id"]
    assert first != described(SHOPIFY, SHOPIFY_HEADERS, b'{"id": 2}')["id"]


def test_a_webhook_of_shopify_without_headers_is_taken_as_it_is() -> None:
    assert "w-1" == described(SHOPIFY, {"x-shopify-webhook-id": "w-1"}, ORDER)["id"]
    first, again, other = (described(SHOPIFY, {}, body) for body in (b"{}", b"{}", b"[]"))

    assert first["id"] == again["id"] != other["id"]
    assert ("shop.received", "shop", ARRIVAL) == told(first)[1:]
    assert "acme.myshopify.com" == described(SHOPIFY, {"x-shopify-shop-domain": "acme.myshopify.com"}, ORDER)["subject"]


# Twilio: the vectors of its libraries for Python and PHP.

TWILIO = source("twilio", "12345", public_base="https://mycompany.com")
CALL = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
CALL_BODY = urlencode(CALL).encode()
SIGNED = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
JSON_BODY = b'{"property": "value", "boolean": true}'
JSON_PATH = "/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
JSON_SIGNED = "a9nBmqA0ju/hNViExpshrM61xv4="


def twilio(signature: str = SIGNED, path: str = "/myapp.php?foo=1&bar=2", content_type: str = FORM) -> Headers:
    return {"x-twilio-signature": signature, PATH: path, "content-type": content_type}


@pytest.mark.parametrize(
    ("base", "signature"),
    [
        ("https://mycompany.com", SIGNED),
        ("https://mycompany.com/", SIGNED),
        ("https://mycompany.com", "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("https://mycompany.com:443", "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("https://mycompany.com:443", SIGNED),
        ("http://mycompany.com", "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("http://mycompany.com:1234", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ("https://mycompany.com:1234", SIGNED),
    ],
)
def test_a_form_of_twilio_is_verified_with_and_without_the_port(base: str, signature: str) -> None:
    configured = replace(TWILIO, options={"public_base": base})

    assert "verified" == verdict(configured, twilio(signature), CALL_BODY, at(0))


@pytest.mark.parametrize(
    ("configured", "headers", "body", "expected"),
    [
        (TWILIO, twilio(), CALL_BODY + b"&Extra=", "signature"),
        (TWILIO, twilio(), CALL_BODY.replace(b"1234&", b"1235&"), "signature"),
        (TWILIO, twilio(path="/myapp.php?foo=1&bar=3"), CALL_BODY, "signature"),
        (TWILIO, twilio(path="/other.php?foo=1&bar=2"), CALL_BODY, "signature"),
        (TWILIO, twilio(b64encode(b"x" * 20).decode()), CALL_BODY, "signature"),
        (replace(TWILIO, secrets=("54321",)), twilio(), CALL_BODY, "signature"),
        (replace(TWILIO, options={"public_base": "https://other.com"}), twilio(), CALL_BODY, "signature"),
        (TWILIO, twilio() | {"host": "x", "x-forwarded-host": "other.com", "x-forwarded-proto": "http"}, CALL_BODY, "verified"),
        (TWILIO, twilio(), b"&".join(reversed(CALL_BODY.split(b"&"))), "verified"),
        (TWILIO, twilio(content_type="application/json"), CALL_BODY, "malformed"),
        (TWILIO, twilio(""), CALL_BODY, "malformed"),
        (TWILIO, twilio("short"), CALL_BODY, "malformed"),
        (replace(TWILIO, options={"public_base": "https://[::1"}), twilio(), CALL_BODY, "signature"),
        (replace(TWILIO, options={"public_base": "https://a:99999"}), twilio(), CALL_BODY, "signature"),
        (replace(TWILIO, options={}), twilio(), CALL_BODY, "signature"),
        (TWILIO, twilio(), b"a=&" * 1001, "malformed"),
        (TWILIO, twilio(path="/?" + "a=&" * 1001), b"", "malformed"),
        (TWILIO, {"x-twilio-signature": SIGNED, "content-type": FORM}, CALL_BODY, "signature"),
    ],
)
def test_what_twilio_did_not_sign_is_not_verified(configured: Source, headers: Headers, body: bytes, expected: str) -> None:
    assert expected == verdict(configured, headers, body, at(0))


def test_the_public_url_may_have_another_path_than_the_one_that_arrives() -> None:
    behind = source("twilio", "12345", public_url="https://mycompany.com/myapp.php")

    assert "verified" == verdict(behind, twilio(path="/in/acme/shop?foo=1&bar=2"), CALL_BODY, at(0))
    assert "signature" == verdict(behind, twilio(path="/in/acme/shop?foo=1"), CALL_BODY, at(0))


def test_values_of_one_field_of_twilio_count_once_and_sorted() -> None:
    body = b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234"

    assert "verified" == verdict(TWILIO, twilio("IK+Dwps556ElfBT0I3Rgjkr1wJU="), body, at(0))


def test_json_of_twilio_is_verified_by_the_hash_in_the_url() -> None:
    headers = twilio(JSON_SIGNED, JSON_PATH, "application/json")

    assert "verified" == verdict(TWILIO, headers, JSON_BODY, at(0))
    assert "signature" == verdict(TWILIO, headers, JSON_BODY + b" ", at(0))
    assert "signature" == verdict(TWILIO, headers | {PATH: JSON_PATH + "&bodySHA256=" + "0" * 64}, JSON_BODY, at(0))
    assert "malformed" == verdict(TWILIO, headers | {PATH: "/myapp.php?foo=1&bar=2"}, JSON_BODY, at(0))


def test_the_hash_in_the_url_counts_for_a_body_that_says_it_is_a_form() -> None:
    assert "signature" == verdict(TWILIO, twilio(JSON_SIGNED, JSON_PATH), b"&&&", at(0))
    assert "signature" == verdict(TWILIO, twilio(JSON_SIGNED, JSON_PATH), b"Body=other", at(0))
    assert "verified" == verdict(TWILIO, twilio(JSON_SIGNED, JSON_PATH), JSON_BODY, at(0))


def test_a_signature_of_twilio_may_be_of_sha256() -> None:
    content = "https://mycompany.com/myapp.php?foo=1&bar=2" + "".join(name + CALL[name] for name in sorted(CALL))
    signature = b64encode(hmac.digest(b"12345", content.encode(), "sha256")).decode()

    assert "verified" == verdict(TWILIO, twilio(signature), CALL_BODY, at(0))
    assert "signature" == verdict(TWILIO, twilio(signature), CALL_BODY + b"1", at(0))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"MessageSid": "SM1", "SmsStatus": "received", "Body": "hi"}, ("SM1", "message.received", "SM1")),
        ({"MessageSid": "SM1", "Body": "hi"}, ("SM1", "message.received", "SM1")),
        ({"MessageSid": "SM1", "MessageStatus": "sent"}, ("SM1-sent", "message.status.sent", "SM1")),
        ({"MessageSid": "SM1", "MessageStatus": "delivered"}, ("SM1-delivered", "message.status.delivered", "SM1")),
        ({"MessageSid": "SM1", "MessageStatus": "read", "EventType": "READ"}, ("SM1-read", "message.status.read", "SM1")),
        ({"SmsSid": "SM2", "SmsStatus": "failed"}, ("SM2-failed", "message.status.failed", "SM2")),
    ],
)
def test_a_message_and_each_of_its_statuses_are_events_of_their_own(form: Headers, expected: tuple[str, ...]) -> None:
    assert expected == told(described(TWILIO, twilio(), urlencode(form).encode()))[:3]


def test_a_call_is_an_event_each_time_something_is_said_of_it() -> None:
    said = [
        CALL | {"CallStatus": status, "Digits": digits} for status, digits in (("ringing", ""), ("ringing", "1"), ("busy", ""))
    ]
    events = [described(TWILIO, twilio(), urlencode(form).encode()) for form in said]

    assert 3 == len({event["id"] for event in events})
    assert ["call.ringing", "call.ringing", "call.busy"] == [event["type"] for event in events]
    assert {CALL["CallSid"]} == {event["subject"] for event in events}


def test_an_id_made_of_a_form_of_twilio_is_made_of_what_is_signed() -> None:
    reordered = b"&".join(reversed(CALL_BODY.split(b"&")))
    written = CALL_BODY.replace(b"%2B", b"%2b") + b"&" + CALL_BODY

    assert 1 == len({described(TWILIO, twilio(), body)["id"] for body in (CALL_BODY, reordered, written)})


def test_a_twilio_form_that_cannot_be_parsed_is_described_by_its_bytes() -> None:
    body = b"CallSid=CA1&" * 1001

    assert described(TWILIO, twilio(), body)["id"] == described(TWILIO, twilio(), body)["id"]


def test_a_callback_of_a_call_says_when() -> None:
    body = urlencode(CALL | {"Timestamp": "Mon, 15 Aug 2005 15:52:01 +0000"}).encode()

    assert "2005-08-15T15:52:01Z" == described(TWILIO, twilio(), body)["time"]


def test_other_callbacks_of_twilio_say_what_they_are() -> None:
    talk = urlencode({"EventType": "onMessageUpdated", "MessageSid": "IM1", "ConversationSid": "CH1"}).encode()
    streamed = b'[{"id": "EZ1", "type": "com.twilio.messaging", "subject": "s", "time": "2026-01-01T00:00:00Z"}]'
    json_ = twilio(path=JSON_PATH, content_type="application/json")

    assert ("onMessageUpdated", "CH1") == told(described(TWILIO, twilio(), talk))[1:3]
    assert ("EZ1", "com.twilio.messaging", "s", "2026-01-01T00:00:00Z") == told(described(TWILIO, json_, streamed))
    assert "shop.received" == described(TWILIO, json_, b"[1, 2]")["type"]
    assert described(TWILIO, json_, b"<x/>")["id"] == described(TWILIO, json_, b"<x/>")["id"]


# All four providers.

RULED = {"id": "digest:body", "type": "header:X-Kind", "subject": "form:From", "time": "form:At"}


@pytest.mark.parametrize("kind", ["stripe", "slack", "shopify", "twilio"])
def test_the_rules_of_a_source_come_before_its_kind(kind: str) -> None:
    ruled = replace(source(kind, "x"), **RULED)  # type: ignore[arg-type]
    body = b"From=%2B1555&At=1700000000"

    found = described(ruled, {"content-type": FORM, "x-kind": "mine", PATH: "/"}, body)

    assert (sha256(body).hexdigest(), "mine", "+1555", "2023-11-14T22:13:20Z") == told(found)


@pytest.mark.parametrize(("off", "expected"), [(300, "verified"), (-300, "verified"), (301, "timestamp"), (-301, "timestamp")])
def test_a_signed_timestamp_is_allowed_five_minutes_both_ways(off: int, expected: str) -> None:
    stripe = {"stripe-signature": f"t={STRIPE_SENT},v1={STRIPE_V1}"}

    assert expected == verdict(STRIPE, stripe, STRIPE_BODY, at(STRIPE_SENT + off))
    assert expected == verdict(SLACK, slack(), SLACK_BODY, at(SLACK_SENT + off))


def test_the_tolerance_is_the_sources() -> None:
    assert "verified" == verdict(replace(SLACK, tolerance=3600), slack(), SLACK_BODY, at(SLACK_SENT + 3600))
    assert "timestamp" == verdict(replace(SLACK, tolerance=1), slack(), SLACK_BODY, at(SLACK_SENT + 2))


GENUINE: list[tuple[Source, Headers, bytes, int]] = [
    (STRIPE, {"stripe-signature": f"t={STRIPE_SENT},v1={STRIPE_V1}"}, STRIPE_BODY, STRIPE_SENT),
    (SLACK, slack(), SLACK_BODY, SLACK_SENT),
    (SHOPIFY, {"x-shopify-hmac-sha256": "dzJZAsrKgS3CWXM6rNBGtzgXNyx3e42VtAJkdHRRbhM="}, b"{}", 0),
    (TWILIO, twilio(), CALL_BODY, 0),
]


@pytest.mark.parametrize(("genuine", "headers", "body", "sent"), GENUINE, ids=[one[0].kind for one in GENUINE])
def test_any_of_several_secrets_verifies_and_an_empty_one_never(
    genuine: Source, headers: Headers, body: bytes, sent: int
) -> None:
    (right,) = genuine.secrets

    assert ["verified", "verified", "signature", "signature", "signature"] == [
        verdict(replace(genuine, secrets=secrets), headers, body, at(sent))
        for secrets in ((right, "other"), ("other", right), ("other",), ("",), ())
    ]


@pytest.mark.parametrize("fine", [STRIPE, SLACK, SHOPIFY, TWILIO, replace(SLACK, options={"answer": "empty"})])
def test_a_source_that_is_fine_has_no_problems(fine: Source) -> None:
    assert [] == check(fine)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (source("stripe"), "at least one secret"),
        (source("stripe", "x", answer="empty"), "no option 'answer'"),
        (source("slack", ""), "secret 1 is empty"),
        (source("slack", "x", answer="twiml"), "it must be empty"),
        (source("shopify", "x", header="X"), "no option 'header'"),
        (source("twilio", "x"), "needs option public_base"),
        (source("twilio", "x", public_base="https://a", public_url="https://a/b"), "one of them only"),
        (source("twilio", "x", public_base="hooks.acme.example"), "must be an http:// or https:// URL"),
        (source("twilio", "x", public_url="https://a/b?c=d"), "without user, query or fragment"),
        (source("twilio", "x", public_base="https://me:pw@a"), "without user"),
        (source("twilio", "x", public_base="https://a", answer="xml"), "it must be twiml"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(wrong: Source, words: str) -> None:
    assert any(words in problem for problem in check(wrong))
