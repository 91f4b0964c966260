from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Rejected
from pipeline.kinds import KINDS, Unverified, check
from pipeline.receive import receive
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
        b'{"specversion":"1.0","id":"1","type":"t","source":"s","data":NaN}',
        b'[{"specversion":"1.0","id":"1","type":"t","source":"s"}]',
        b"\xff\xfe{\x00}\x00",
    ]
)
SECRETS = st.lists(st.text(max_size=40) | st.sampled_from(["whsec_", "whpk_" + "A" * 43 + "=", "whsec_AAAA", ""]), max_size=3)
OPTIONS = st.dictionaries(
    st.sampled_from(["header", "algorithm", "encoding", "prefix", "timestamp_header", "signed", "other"]),
    st.sampled_from(["X-Signature", "X-Time", "sha512", "md5", "base64", "{timestamp}{body}", "", "\ud800", "{body}{body}"]),
    max_size=4,
)

Expected = TypeVar("Expected", bound=Exception)


def raised(expected: type[Expected], call: Callable[[], object]) -> Expected | None:
    """The error of `call`, if it is the expected one; any other goes on."""
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

    assert (kind == "none") == (error is None)  # nothing here is signed
    if error is not None:
        assert error.reason in ("signature", "timestamp", "malformed")
        assert error.detail
        assert not any(secret in error.detail for secret in secrets if len(secret) > 12)


@pytest.mark.parametrize("kind", [*KINDS, "amqp", "whatever"])
@given(secrets=SECRETS, options=OPTIONS)
def test_whatever_is_configured_problems_are_lines_of_text(kind: str, secrets: list[str], options: dict[str, str]) -> None:
    problems = check(Source("acme", "shop", kind, tuple(secrets), options=options))

    assert all(problem and "\n" not in problem for problem in problems)


RULES = st.sampled_from([None, "/id", "/a/0", "header:X-Time", "header:ce-id", "/~1"])


@pytest.mark.parametrize("kind", ["none", "github"])
@given(headers=HEADERS, body=BODIES, rule=RULES, extension=RULES)
def test_whatever_comes_a_message_is_received_or_rejected(
    kind: str, headers: dict[str, str], body: bytes, rule: str | None, extension: str | None
) -> None:
    extensions = {"extra": extension} if extension else {}
    source = Source("acme", "shop", kind, id=rule, extensions=extensions)

    events: list[tuple[dict[str, str], bytes]] = []
    error = raised(Rejected, lambda: events.extend(receive(source, headers, body, NOW, lambda: "fresh")))

    assert error is None or error.reason in Rejected.REASONS
    assert all(attributes["id"] and attributes["source"] == "shop" for attributes, _ in events)
