from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from pipeline.receive import receive
from pipeline.sources import KINDS, Unverified, check
from schemas.source import Source

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

NAMES = st.sampled_from(
    [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "svix-id",
        "svix-timestamp",
        "svix-signature",
        "x-hub-signature-256",
        "x-github-delivery",
        "x-github-event",
        "stripe-signature",
        "x-slack-signature",
        "x-slack-request-timestamp",
        "x-shopify-hmac-sha256",
        "x-shopify-topic",
        "x-shopify-event-id",
        "x-shopify-triggered-at",
        "x-twilio-signature",
        ":path",
        "x-signature",
        "x-time",
        "authorization",
        "content-type",
        "ce-specversion",
        "ce-id",
        "ce-type",
        "ce-source",
        "ce-time",
        "ce-subject",
        "ce-Bad Name",
        "idempotency-key",
        "traceparent",
        "tracestate",
    ]
)
LIKELY = st.sampled_from(
    [
        "v1,",
        "v1a,AAAA",
        "v1," + "A" * 43 + "=",
        "sha256=" + "0" * 64,
        "1767323045",
        "t=1767323045,v1=" + "0" * 64,
        "t=1767323045,v1=",
        "v0=" + "0" * 64,
        "A" * 27 + "=",
        "A" * 43 + "=",
        "/in/acme/shop?bodySHA256=" + "0" * 64,
        "/?bodySHA256=\u0130&bodySHA256",
        "Mon, 99 Foo 2005 99:99:99 +9999",
        "9" * 400,
        "-0",
        "1.0",
        "Bearer ",
        "Bearer \x00",
        "application/cloudevents+json",
        "application/cloudevents-batch+json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "%ff%00",
        "\ud800",
        "२०२६",
        "2026-01-01T00:00:00Z",
        "9999-99-99T99:99:99Z",
    ]
)
HEADERS = st.dictionaries(NAMES, LIKELY | st.text(max_size=40) | st.text("v1a,=. \x00\xff", max_size=80), max_size=8)
BODIES = st.binary(max_size=200) | st.sampled_from(
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 5000,
        b'{"id":{}}',
        b'{"id":1e999,"type":[],"subject":null}',
        b'{"id":12345678901234567890123,"type":"\\u0000"}',
        b'{"repository":[]}',
        b'{"repository":{"full_name":7}}',
        b"payload=%7B%7D",
        b"payload=%5B&trigger_id=%FF",
        b"MessageSid=SM1&MessageStatus=%00",
        b"a=&" * 1001,
        b'{"event":{"channel":{"id":[]}},"event_time":-1,"created":1e400}',
        b'{"type":"url_verification","challenge":7}',
        b'[{"id":"1","time":"never"}]',
        b'{"specversion":"1.0","id":"1","type":"t","source":"s","data":NaN}',
        b'[{"specversion":"1.0","id":"1","type":"t","source":"s"}]',
        b"\xff\xfe{\x00}\x00",
    ]
)
SECRETS = st.lists(st.text(max_size=40) | st.sampled_from(["whsec_", "whpk_" + "A" * 43 + "=", "whsec_AAAA", ""]), max_size=3)
OPTIONS = st.dictionaries(
    st.sampled_from(["header", "algorithm", "encoding", "prefix", "timestamp_header", "signed", "public_base", "public_url"]),
    st.sampled_from(["X-Signature", "X-Time", "sha512", "md5", "base64", "{timestamp}{body}", "", "\ud800", "{body}{body}"])
    | st.sampled_from(["https://a.example", "https://a:99999", "https://[::1", "http://a:\u0669", "//", "https://@:0"]),
    max_size=4,
)

Expected = TypeVar("Expected", bound=Exception)


def raised(expected: type[Expected], call: Callable[[], object]) -> Expected | None:
    """The error of `call` if it is of the expected class; any other propagates."""
    try:
        call()
    except expected as error:
        return error
    return None


@pytest.mark.parametrize("kind", KINDS)
@given(headers=HEADERS, body=BODIES, secrets=SECRETS, options=OPTIONS, tolerance=st.integers(0, 10**9))
def test_whatever_comes_a_message_is_verified_or_unverified(
    kind: str, headers: dict[str, str], body: bytes, secrets: list[str], options: dict[str, str], tolerance: int
) -> None:
    source = Source("acme", "shop", kind, tuple(secrets), options=options, tolerance=tolerance)

    error = raised(Unverified, lambda: KINDS[kind].verify(source, headers, body, NOW))

    assert (kind == "none") == (error is None)  # no generated message is signed
    if error is not None:
        assert error.reason in ("signature", "timestamp", "malformed")
        assert error.detail
        assert not any(secret in error.detail for secret in secrets if len(secret) > 12)


@pytest.mark.parametrize("kind", [*KINDS, "amqp", "whatever"])
@given(secrets=SECRETS, options=OPTIONS)
def test_whatever_is_configured_problems_are_lines_of_text(kind: str, secrets: list[str], options: dict[str, str]) -> None:
    problems = check(Source("acme", "shop", kind, tuple(secrets), options=options))

    assert all(problem and "\n" not in problem for problem in problems)


RULES = st.sampled_from(
    [None, "/id", "/a/0", "header:X-Time", "header:ce-id", "/~1", "form:a", "form:MessageSid", "digest:body"]
)


@pytest.mark.parametrize("kind", ["none", "github", "stripe", "slack", "shopify", "twilio"])
@given(headers=HEADERS, body=BODIES, rule=RULES, extension=RULES, time=RULES)
def test_whatever_comes_a_message_is_received_or_rejected(
    kind: str, headers: dict[str, str], body: bytes, rule: str | None, extension: str | None, time: str | None
) -> None:
    extensions = {"extra": extension} if extension else {}
    source = Source("acme", "shop", kind, id=rule, time=time, extensions=extensions)

    events: list[tuple[dict[str, str], bytes]] = []
    error = raised(Rejected, lambda: events.extend(receive(source, headers, body, NOW, lambda: "fresh")))

    assert error is None or error.reason in Rejected.REASONS
    assert all(attributes["id"] and attributes["source"] == "shop" for attributes, _ in events)


@given(headers=HEADERS, body=BODIES)
def test_whatever_comes_slack_is_answered_or_not(headers: dict[str, str], body: bytes) -> None:
    greet = KINDS["slack"].greet
    assert greet is not None
    reply = greet(headers, body)

    assert reply is None or len(reply.body) <= 512 * 4


WAYS = st.sampled_from([("stripe", {}), ("slack", {}), ("shopify", {}), ("twilio", {"public_base": "https://a.example"})])
SOME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(way=WAYS, body=st.binary(max_size=100), secret=SOME, other=SOME, form=st.booleans())
def test_what_a_kind_signs_it_verifies_and_with_another_secret_it_does_not(
    way: tuple[str, dict[str, str]], body: bytes, secret: str, other: str, form: bool
) -> None:
    name, options = way
    kind, source = KINDS[name], Source("acme", "shop", name, (secret,), options=options)
    headers = {":path": "/in/acme/shop?a=b", "content-type": "application/x-www-form-urlencoded" if form else "text/plain"}
    headers |= kind.sign(source, headers, body, NOW)

    assert None is raised(Unverified, lambda: kind.verify(source, headers, body, NOW))
    strange = Source("acme", "shop", name, (other,), options=options)
    assert (secret == other) == (raised(Unverified, lambda: kind.verify(strange, headers, body, NOW)) is None)


@given(way=WAYS, body=st.binary(min_size=1, max_size=60), at=st.integers(0, 59), bit=st.integers(0, 7))
def test_one_bit_of_the_body_counts(way: tuple[str, dict[str, str]], body: bytes, at: int, bit: int) -> None:
    name, options = way
    kind, source = KINDS[name], Source("acme", "shop", name, ("s",), options=options)
    headers = {":path": "/in/acme/shop", "content-type": "application/json"}
    headers |= kind.sign(source, headers, body, NOW)
    altered = bytearray(body)
    altered[at % len(body)] ^= 1 << bit

    error = raised(Unverified, lambda: kind.verify(source, headers, bytes(altered), NOW))

    assert error is not None
    assert "signature" == error.reason
