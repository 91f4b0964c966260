"""The providers' own libraries verify what Waxseal signs, and Waxseal verifies what they sign."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier
from stripe import SignatureVerificationError, WebhookSignature
from twilio.request_validator import RequestValidator

from pipeline.formats.forms import FORM
from pipeline.sources import KINDS, PATH, Headers, Unverified
from schemas.source import Source

SECRETS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
TEXTS = st.text(max_size=200)


def now() -> datetime:
    return datetime.now(UTC)


def source(kind: str, secret: str, **options: str) -> Source:
    return Source("acme", "shop", kind, (secret,), options=options)


def signed(a_source: Source, headers: Headers, body: bytes) -> dict[str, str]:
    return {**headers, **KINDS[a_source.kind].sign(a_source, headers, body, now())}


def verifies(a_source: Source, headers: Headers, body: bytes) -> bool:
    try:
        KINDS[a_source.kind].verify(a_source, headers, body, now())
    except Unverified:
        return False
    return True


@given(secret=SECRETS, body=TEXTS, other=SECRETS)
def test_stripes_library_verifies_what_we_sign(secret: str, body: str, other: str) -> None:
    header = signed(source("stripe", secret), {}, body.encode("utf-8", "replace"))["stripe-signature"]

    assert WebhookSignature.verify_header(body.encode("utf-8", "replace"), header, secret, 300)
    if other != secret:
        with pytest.raises(SignatureVerificationError):
            WebhookSignature.verify_header(body.encode("utf-8", "replace"), header, other, 300)


@given(secret=SECRETS, body=TEXTS)
def test_we_verify_what_stripes_library_signs(secret: str, body: str) -> None:
    text = body.encode("utf-8", "replace").decode()
    header = WebhookSignature.generate_signature_header(text, secret)

    assert verifies(source("stripe", secret), {"stripe-signature": header}, text.encode())
    assert not verifies(source("stripe", secret), {"stripe-signature": header}, text.encode() + b" ")


@given(secret=SECRETS, body=TEXTS)
def test_slacks_library_verifies_what_we_sign_and_we_what_it_signs(secret: str, body: str) -> None:
    text = body.encode("utf-8", "replace").decode()
    official, ours = SignatureVerifier(secret), source("slack", secret)
    headers = signed(ours, {}, text.encode())
    sent = str(int(time.time()))
    theirs = official.generate_signature(timestamp=sent, body=text)

    assert official.is_valid(text, headers["x-slack-request-timestamp"], headers["x-slack-signature"])
    assert theirs is not None
    assert verifies(ours, {"x-slack-request-timestamp": sent, "x-slack-signature": theirs}, text.encode())


class Fields(dict[str, list[str]]):
    """A form as web frameworks pass it to Twilio's library."""

    @classmethod
    def of(cls, body: bytes) -> "Fields":
        found = cls()
        for name, value in parse_qsl(body.decode(), keep_blank_values=True):
            found.setdefault(name, []).append(value)
        return found

    def getlist(self, name: str) -> list[str]:
        return self[name]


NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
FORMS = st.lists(st.tuples(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), max_size=8)
BASES = st.sampled_from(["https://a.example", "https://a.example:443", "http://a.example", "https://a.example:8443/waxseal"])
PATHS = st.sampled_from(["/in/acme/shop", "/in/acme/shop?a=1&b=%20", "/in/acme/shop?empty="])


@given(secret=SECRETS, form=FORMS, base=BASES, path=PATHS)
def test_twilios_library_verifies_forms_that_we_sign_and_we_those_it_signs(
    secret: str, form: list[tuple[str, str]], base: str, path: str
) -> None:
    official, ours, body = RequestValidator(secret), source("twilio", secret, public_base=base), urlencode(form).encode()
    headers = {PATH: path, "content-type": FORM}

    assert official.validate(base + path, Fields.of(body), signed(ours, headers, body)["x-twilio-signature"])
    for algorithm in ("HMAC_SHA1", "HMAC_SHA256"):
        theirs = official.compute_signature(base + path, Fields.of(body), algorithm)
        assert verifies(ours, {**headers, "x-twilio-signature": theirs}, body)


@given(secret=SECRETS, body=TEXTS, base=BASES, path=PATHS)
def test_twilios_library_verifies_json_that_we_sign(secret: str, body: str, base: str, path: str) -> None:
    text = body.encode("utf-8", "replace").decode()
    ours = source("twilio", secret, public_base=base)
    headers: Mapping[str, str] = signed(ours, {PATH: path, "content-type": "application/json"}, text.encode())

    assert RequestValidator(secret).validate(base + headers[PATH], text, headers["x-twilio-signature"])
    assert verifies(ours, headers, text.encode())


@given(
    secret=st.binary(min_size=24, max_size=64),
    document=st.lists(TEXTS),
    name=st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True),
)
def test_the_library_of_standard_webhooks_verifies_what_we_sign(secret: bytes, document: list[str], name: str) -> None:
    text = json.dumps(document)
    whsec = "whsec_" + base64.b64encode(secret).decode()
    headers = signed(source("standard-webhooks", whsec), {"webhook-id": name}, text.encode())

    standardwebhooks.Webhook(whsec).verify(text, headers)
