"""Stripe: HMAC-SHA256 of `t.body` in Stripe-Signature: t=...,v1=..., with one v1 for each currently valid secret.

Source: docs.stripe.com/webhooks, "Verify webhook signatures manually". The key is the whole secret, whsec_ included. The id is
signed as well, so a replay within the tolerance is recognised by it.
"""

import hmac
import re
from datetime import datetime
from typing import Any, Final

from pipeline.formats.bounded_json import members
from pipeline.formats.timestamps import moment
from pipeline.sources.kind import (
    Headers,
    Kind,
    Sample,
    Unverified,
    any_equal,
    check_age,
    check_time,
    first_key,
    keys_of,
    secrets_alone,
)
from pipeline.sources.payload import text_at
from schemas.source import Source

_HEADER: Final = "stripe-signature"
_MAX_ITEMS: Final = 20  # each v1 is compared with each secret's
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def verify(source: Source, headers: Headers, body: bytes, now: datetime) -> None:
    """One v1 of the header must be made with one of the secrets, and the timestamp, which is signed, must be recent."""
    timestamp, signatures = _fields(headers.get(_HEADER, ""))
    sent = check_time(timestamp, "t in Stripe-Signature")
    expected = [_signature(key, timestamp, body) for key in keys_of(source)]
    if not any_equal(expected, signatures):
        raise Unverified("signature", "no v1 in Stripe-Signature matches")
    check_age(sent, now, source.tolerance)


def describe(source: Source, _headers: Headers, body: bytes) -> dict[str, str]:
    """The event's id, type and time, and the id of its object, for snapshot and thin events."""
    event = members(body)
    subject = text_at(event, "data", "object", "id") or text_at(event, "related_object", "id")
    found: dict[str, Any] = {"id": text_at(event, "id"), "type": text_at(event, "type"), "subject": subject or source.name}
    found["time"] = moment(event.get("created"))
    return {name: value for name, value in found.items() if value}


def sign(source: Source, _headers: Headers, body: bytes, now: datetime) -> dict[str, str]:
    """Stripe-Signature."""
    timestamp = str(int(now.timestamp()))
    return {_HEADER: f"t={timestamp},v1={_signature(first_key(source), timestamp, body).hex()}"}


def _signature(key: bytes, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(key, b"%b.%b" % (timestamp.encode(), body), "sha256")


def _fields(header: str) -> tuple[str, list[bytes]]:
    items = [item.strip().partition("=") for item in header.split(",", _MAX_ITEMS)]
    times = [value for name, _, value in items if name == "t"]
    signatures = [value for name, _, value in items if name == "v1"]
    if len(times) != 1 or not signatures or len(items) > _MAX_ITEMS:
        raise Unverified("malformed", f"the header Stripe-Signature must hold one t= and v1=, {_MAX_ITEMS} items at most")
    return times[0], [bytes.fromhex(value) for value in signatures if _HEX.fullmatch(value)]


def sample(fresh: str, now: datetime) -> Sample:
    """A payment that succeeded."""
    paid = {"id": "pi_sample", "object": "payment_intent", "amount": 4200, "currency": "eur", "status": "succeeded"}
    event = {"id": f"evt_{fresh}", "object": "event", "type": "payment_intent.succeeded", "created": int(now.timestamp())}
    return {"content-type": "application/json; charset=utf-8"}, {**event, "livemode": False, "data": {"object": paid}}


KIND = Kind(verify, secrets_alone, sign, describe, sample=sample)
