import base64
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.telemetry.label_sets import SOURCES
from pipeline.sources import KINDS, NAMES, check
from schemas.source import Source
from support.kinds import SHOPIFY_VECTORS, SLACK_BODY, SLACK_KEY, SLACK_SENT, SLACK_SIGNATURE, Headers, at, source, verdict
from support.pages import section


def test_every_kind_is_counted_and_amqp_is_not_taken_over_http() -> None:
    assert set(NAMES) == {*KINDS, "amqp"}
    assert set(NAMES) < set(SOURCES)


def test_the_page_on_sources_has_a_row_for_every_kind() -> None:
    rows = [
        line.split("|")[1].strip(" `")
        for line in section("ops/docs/sources.md", "Kinds").splitlines()
        if line.startswith("| `")
    ]

    assert list(NAMES) == rows


# Standard Webhooks: vectors of the Python and Rust libraries, and of Svix's worker.

SYMMETRIC = source("standard-webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ASYMMETRIC = source("standard-webhooks", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")
BODY = b'{"test": 2432232314}'
SENT = 1614265330
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
WRONG = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="


def webhook(signature: str = V1, *, name: str = "msg_p5jXN8AQM9LWM0D4loKWxJek", sent: object = SENT) -> Headers:
    return {"webhook-id": name, "webhook-timestamp": str(sent), "webhook-signature": signature}


@pytest.mark.parametrize(
    ("a_source", "signature", "expected"),
    [
        (SYMMETRIC, V1, "verified"),
        (SYMMETRIC, WRONG, "signature"),
        (ASYMMETRIC, V1A, "verified"),
        (ASYMMETRIC, V1A.replace("hnO3", "hnO4"), "signature"),
        (ASYMMETRIC, V1, "signature"),
        (SYMMETRIC, V1A, "signature"),
        (SYMMETRIC, f"{WRONG} v2,abc {V1}", "verified"),
        (SYMMETRIC, f"{V1} {WRONG}", "verified"),
        (SYMMETRIC, V1.replace("v1,", "v2,"), "signature"),
        (SYMMETRIC, V1.rstrip("="), "verified"),
        (SYMMETRIC, "v1,", "signature"),
        (SYMMETRIC, "v1", "signature"),
        (SYMMETRIC, "v1,***", "signature"),
        (SYMMETRIC, f"{V1}, {V1}", "verified"),  # the header was sent twice
        (SYMMETRIC, " ".join([WRONG] * 21), "malformed"),
        (SYMMETRIC, "", "malformed"),
    ],
)
def test_a_standard_webhook_is_verified_by_any_signature_of_its_header(a_source: Source, signature: str, expected: str) -> None:
    assert expected == verdict(a_source, webhook(signature), BODY, at(SENT))


def test_the_second_published_vector_of_standard_webhooks_is_verified() -> None:
    rust = source("standard-webhooks", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    body = b'{"email":"test@example.com","username":"test_user"}'

    def tried(signature: str) -> str:
        return verdict(rust, webhook(signature, name="msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", sent=1649367553), body, at(1649367553))

    assert "verified" == tried("v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=")
    assert "signature" == tried("v1,R3PTzyfHASBKHH98a7yexTwaJ4yNIcGhFQc1yuN+BPU=")


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_of_a_standard_webhook_is_needed(missing: str) -> None:
    headers = webhook()
    del headers[missing]

    assert "malformed" == verdict(SYMMETRIC, headers, BODY, at(SENT))


@pytest.mark.parametrize("sent", ["hello", "1.5", "-1", "+1", "1e9", "", " 1614265330", "9" * 13, "९", "1\x00"])
def test_a_timestamp_that_is_no_number_is_malformed(sent: str) -> None:
    assert "malformed" == verdict(SYMMETRIC, webhook(sent=sent), BODY, at(SENT))


@pytest.mark.parametrize(("off", "expected"), [(300, "verified"), (-300, "verified"), (301, "timestamp"), (-301, "timestamp")])
def test_a_timestamp_is_allowed_five_minutes_both_ways(off: int, expected: str) -> None:
    assert expected == verdict(SYMMETRIC, webhook(), BODY, at(SENT) + timedelta(seconds=off))


def test_the_tolerance_is_the_sources() -> None:
    assert "verified" == verdict(replace(SYMMETRIC, tolerance=3600), webhook(), BODY, at(SENT + 3600))
    assert "timestamp" == verdict(replace(SYMMETRIC, tolerance=1), webhook(), BODY, at(SENT + 2))


def test_only_senders_that_know_the_secret_learn_that_the_clocks_differ() -> None:
    assert "signature" == verdict(SYMMETRIC, webhook(WRONG), BODY, at(SENT + 3600))


@pytest.mark.parametrize("change", [{"name": "msg_other"}, {"sent": SENT + 1}])
def test_the_id_and_the_timestamp_are_signed(change: dict[str, object]) -> None:
    assert "signature" == verdict(SYMMETRIC, webhook(**change), BODY, at(SENT))  # type: ignore[arg-type]


def test_one_byte_of_the_body_counts() -> None:
    assert "signature" == verdict(SYMMETRIC, webhook(), BODY + b" ", at(SENT))


def test_the_headers_of_svix_are_understood() -> None:
    svix = {name.replace("webhook-", "svix-"): value for name, value in webhook().items()}

    assert "verified" == verdict(SYMMETRIC, svix, BODY, at(SENT))


def test_a_body_that_is_not_utf8_can_be_signed() -> None:
    body = b"\xff\x00\xfe"
    mac = hmac.digest(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), b"a.%d." % SENT + body, "sha256")
    signed = "v1," + base64.b64encode(mac).decode()

    assert "verified" == verdict(SYMMETRIC, webhook(signed, name="a"), body, at(SENT))


# GitHub: vectors of its documentation and of octokit.

GITHUB = [
    (
        "It's a Secret to Everybody",
        b"Hello, World!",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    ),
    ("mysecret", b'{"foo":"bar"}', "sha256=4864d2759938a15468b5df9ade20bf161da9b4f737ea61794142f3484236bda3"),
]


@pytest.mark.parametrize(("secret", "body", "signature"), GITHUB)
def test_a_delivery_of_github_is_verified_by_its_published_vectors(secret: str, body: bytes, signature: str) -> None:
    def tried(header: str, content: bytes = body) -> str:
        return verdict(source("github", secret), {"x-hub-signature-256": header}, content, at(0))

    assert "verified" == tried(signature)
    assert "signature" == tried(signature, body + b"!")
    assert "signature" == tried(signature[:-1] + ("0" if signature[-1] != "0" else "1"))
    assert "malformed" == tried(signature.removeprefix("sha256="))
    assert "malformed" == tried(signature[:-1])
    assert "malformed" == tried(f"{signature}, {signature}")
    assert "malformed" == tried(signature.replace("sha256", "sha1"))


def test_github_without_a_signature_is_malformed() -> None:
    assert "malformed" == verdict(source("github", "mysecret"), {}, b"", at(0))


# Generic HMAC: with the vectors of the providers that it can be configured for.

SHOPIFY = {"header": "X-Shopify-Hmac-SHA256", "encoding": "base64"}
SLACK = {
    "header": "X-Slack-Signature",
    "prefix": "v0=",
    "timestamp_header": "X-Slack-Request-Timestamp",
    "signed": "v0:{timestamp}:{body}",
}


@pytest.mark.parametrize(("secret", "body", "signature"), SHOPIFY_VECTORS)
def test_shopifys_vectors_verify_as_a_configured_hmac(secret: str, body: bytes, signature: str) -> None:
    shopify = source("hmac", secret, **SHOPIFY)

    assert "verified" == verdict(shopify, {"x-shopify-hmac-sha256": signature}, body, at(0))
    assert "signature" == verdict(shopify, {"x-shopify-hmac-sha256": signature}, body + b" ", at(0))
    assert "malformed" == verdict(shopify, {}, body, at(0))


@pytest.mark.parametrize(("off", "expected"), [(0, "verified"), (300, "verified"), (301, "timestamp"), (-301, "timestamp")])
def test_slacks_vector_verifies_as_a_configured_hmac_with_a_timestamp(off: int, expected: str) -> None:
    slack = source("hmac", SLACK_KEY, **SLACK)
    headers = {"x-slack-signature": SLACK_SIGNATURE, "x-slack-request-timestamp": str(SLACK_SENT)}

    assert expected == verdict(slack, headers, SLACK_BODY, at(SLACK_SENT + off))
    assert "signature" == verdict(slack, headers | {"x-slack-request-timestamp": "1531420619"}, SLACK_BODY, at(SLACK_SENT))
    assert "malformed" == verdict(slack, {"x-slack-signature": SLACK_SIGNATURE}, SLACK_BODY, at(SLACK_SENT))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1"])
@pytest.mark.parametrize(("encoding", "encode"), [("hex", bytes.hex), ("base64", lambda mac: base64.b64encode(mac).decode())])
def test_an_hmac_can_be_of_each_algorithm_in_each_encoding(
    algorithm: str, encoding: str, encode: Callable[[bytes], str]
) -> None:
    configured = source("hmac", "s3cret", algorithm=algorithm, encoding=encoding)
    signature = encode(hmac.digest(b"s3cret", b"body", algorithm))

    assert "verified" == verdict(configured, {"x-signature": signature}, b"body", at(0))
    assert "signature" == verdict(configured, {"x-signature": signature}, b"bodY", at(0))


# Bearer tokens.


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer t0ken", "verified"),
        ("bearer t0ken", "verified"),
        ("Bearer  t0ken ", "verified"),
        ("Bearer other", "signature"),
        ("Bearer t0ken2", "signature"),
        ("Bearer ", "malformed"),
        ("Basic t0ken", "malformed"),
        ("t0ken", "malformed"),
        ("", "malformed"),
        ("Bearer t\u00f6ken", "signature"),
    ],
)
def test_a_token_is_taken_from_authorization(header: str, expected: str) -> None:
    assert expected == verdict(source("token", "t0ken"), {"authorization": header}, b"", at(0))


def test_a_token_can_have_a_header_of_its_own() -> None:
    configured = source("token", "t0ken", header="X-Api-Key")

    assert "verified" == verdict(configured, {"x-api-key": "t0ken"}, b"", at(0))
    assert "malformed" == verdict(configured, {"authorization": "Bearer t0ken"}, b"", at(0))


def test_a_token_that_is_not_ascii_is_compared_as_utf8() -> None:
    on_the_wire = "t\u00f6ken".encode().decode("latin-1")

    assert "verified" == verdict(source("token", "t\u00f6ken"), {"authorization": f"Bearer {on_the_wire}"}, b"", at(0))


def test_kind_none_takes_everything() -> None:
    assert "verified" == verdict(source("none"), {}, b"\x00", at(0))


# All kinds.

SIGNED: dict[str, tuple[Headers, bytes, tuple[str, str]]] = {
    "standard-webhooks": (webhook(), BODY, ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "B" * 32)),
    "github": ({"x-hub-signature-256": GITHUB[1][2]}, GITHUB[1][1], ("mysecret", "other")),
    "hmac": ({"x-signature": GITHUB[1][2].removeprefix("sha256=")}, GITHUB[1][1], ("mysecret", "other")),
    "token": ({"authorization": "Bearer right"}, b"", ("right", "other")),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_any_of_several_secrets_verifies_and_none_does_without_the_right_one(kind: str) -> None:
    headers, body, (right, other) = SIGNED[kind]

    assert ["verified", "verified", "verified", "signature", "signature"] == [
        verdict(source(kind, *secrets), headers, body, at(SENT))
        for secrets in ((right,), (right, other), (other, right), (other,), (other, other))
    ]


@pytest.mark.parametrize("kind", SIGNED)
def test_a_source_without_a_secret_verifies_nothing(kind: str) -> None:
    headers, body, _ = SIGNED[kind]

    assert "signature" == verdict(source(kind), headers, body, at(SENT))


@pytest.mark.parametrize("kind", ["github", "hmac"])
def test_an_empty_secret_verifies_nothing(kind: str) -> None:
    forged = hmac.digest(b"", b"body", "sha256").hex()
    headers = {"x-hub-signature-256": f"sha256={forged}", "x-signature": forged}

    assert "signature" == verdict(source(kind, ""), headers, b"body", at(0))


# Errors when a source is applied.

PUBLIC = "whpk_" + base64.b64encode(Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()).decode()


@pytest.mark.parametrize(
    "fine",
    [
        SYMMETRIC,
        ASYMMETRIC,
        source("standard-webhooks", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", PUBLIC),
        source("github", "x"),
        source("hmac", "x"),
        source("hmac", "x", **SHOPIFY),
        source("hmac", "x", **SLACK),
        source("hmac", "x", timestamp_header="X-Time"),
        source("token", "x"),
        source("token", "x", header="X-Api-Key"),
        source("none"),
        source("amqp"),
    ],
    ids=lambda one: f"{one.kind}-{len(one.options)}",
)
def test_a_source_that_is_fine_has_no_problems(fine: Source) -> None:
    assert [] == check(fine)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (source("paypal", "x"), "unknown kind"),
        (source("standard-webhooks"), "at least one secret"),
        (source("standard-webhooks", ""), "secret 1 is empty"),
        (source("standard-webhooks", "whsec_***"), "secret 1 is neither"),
        (source("standard-webhooks", "whpk_AAAA"), "secret 1 is neither"),
        (source("standard-webhooks", SYMMETRIC.secrets[0], "whsk_AAAA"), "secret 2 is a private key"),
        (source("standard-webhooks", SYMMETRIC.secrets[0], header="X"), "no option 'header'"),
        (source("github"), "at least one secret"),
        (source("hmac", "x", algorithm="md5"), "option algorithm"),
        (source("hmac", "x", encoding="rot13"), "option encoding"),
        (source("hmac", "x", signed="{timestamp}"), "{body} once"),
        (source("hmac", "x", signed="{timestamp}.{body}"), "belong together"),
        (source("hmac", "x", timestamp_header="X-Time", signed="{body}"), "belong together"),
        (source("token"), "at least one secret"),
        (source("none", "x"), "checks no secret"),
        (source("amqp", "x"), "takes no secrets"),
    ],
    ids=lambda one: one.kind if isinstance(one, Source) else one,
)
def test_what_is_wrong_with_a_source_is_said_without_its_secrets(wrong: Source, words: str) -> None:
    problems = check(wrong)

    assert any(words in problem for problem in problems)
    assert not any(secret in problem for problem in problems for secret in wrong.secrets if len(secret) > 5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("x" * 100_000, {}),
        ("hmac", {"algorithm": "x" * 100_000}),
        ("hmac", {"x" * 100_000: "x"}),
        ("twilio", {"answer": "x" * 100_000}),
    ],
)
def test_a_problem_is_short_however_long_the_value_is(kind: str, options: dict[str, str]) -> None:
    problems = check(Source("acme", "shop", kind, options=options, secrets=(b"k",)))

    assert problems
    assert max(map(len, problems)) < 400
