"""GitHub: HMAC-SHA256 of the body in X-Hub-Signature-256.

Source: docs.github.com, "Validating webhook deliveries". Neither a time nor the delivery's id is signed: the only protection
from replays is that an id is recorded once.
"""

import hmac
import re
from datetime import datetime

from pipeline.formats.bounded_json import members
from pipeline.formats.forms import FORM, first_value
from pipeline.sources.kind import (
    JSON,
    Headers,
    Kind,
    Sample,
    Unverified,
    any_equal,
    first_key,
    keys_of,
    secrets_alone,
)
from pipeline.sources.payload import text_at
from schemas.source import Source

_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)


def verify(source: Source, headers: Headers, body: bytes, _now: datetime) -> None:
    """The body must be signed with one of the secrets."""
    match = _SIGNATURE.fullmatch(headers.get("x-hub-signature-256", ""))
    if match is None:
        raise Unverified("malformed", "the header X-Hub-Signature-256 must hold sha256= and 64 hexadecimal digits")
    expected = [hmac.digest(key, body, "sha256") for key in keys_of(source)]
    if not any_equal(expected, [bytes.fromhex(match.group(1))]):
        raise Unverified("signature", "X-Hub-Signature-256 does not match")


def describe(source: Source, headers: Headers, body: bytes) -> dict[str, str]:
    """The delivery's id, the event's name, and its repository."""
    found = {"subject": _repository(headers, body) or source.name}
    for attribute, header in (("id", "x-github-delivery"), ("type", "x-github-event")):
        if headers.get(header):
            found[attribute] = headers[header]
    return found


def sign(source: Source, _headers: Headers, body: bytes, _now: datetime) -> dict[str, str]:
    """X-Hub-Signature-256."""
    return {"x-hub-signature-256": f"sha256={hmac.digest(first_key(source), body, 'sha256').hex()}"}


def _repository(headers: Headers, body: bytes) -> str | None:
    if headers.get("content-type", "").lower().startswith(FORM):
        body = first_value(body, b"payload")
    return text_at(members(body), "repository", "full_name")


def sample(fresh: str, _now: datetime) -> Sample:
    """A push."""
    headers = {
        "content-type": JSON,
        "user-agent": "GitHub-Hookshot/sample",
        "x-github-event": "push",
        "x-github-delivery": fresh,
    }
    return headers, {"ref": "refs/heads/main", "repository": {"full_name": "acme/shop"}, "pusher": {"name": "octocat"}}


KIND = Kind(verify, secrets_alone, sign, describe, sample=sample)
