"""Shopify: HMAC-SHA256 of the body, in base64, in X-Shopify-Hmac-SHA256.

Source: shopify.dev, "Deliver webhooks through HTTPS". Neither a time nor any header is signed: replays are recognised by their
id, which anybody who saw a message can change. The rule `id: digest:body` makes the id from signed bytes only.
"""

import base64
import hmac
from datetime import datetime
from typing import Final

from pipeline.formats.bounded_json import members
from pipeline.formats.timestamps import moment
from pipeline.sources.kind import (
    JSON,
    Headers,
    Kind,
    Sample,
    Unverified,
    any_equal,
    base64_bytes,
    first_key,
    iso,
    keys_of,
    octets,
    secrets_alone,
)
from pipeline.sources.payload import digest, text_at
from schemas.source import Source

_HEADER: Final = "x-shopify-hmac-sha256"


def verify(source: Source, headers: Headers, body: bytes, _now: datetime) -> None:
    """The body must be signed with one of the secrets: the app's client secret, or the one the shop shows."""
    given = base64_bytes(headers.get(_HEADER, ""))
    if not given:
        raise Unverified("malformed", "the header X-Shopify-Hmac-SHA256 must hold base64")
    if not any_equal([hmac.digest(key, body, "sha256") for key in keys_of(source)], [given]):
        raise Unverified("signature", "X-Shopify-Hmac-SHA256 does not match")


def describe(source: Source, headers: Headers, body: bytes) -> dict[str, str]:
    """The topic; the resource, such as orders/1234, or else the shop, as subject; and the time of the trigger."""
    topic, shop = headers.get("x-shopify-topic", ""), headers.get("x-shopify-shop-domain", "")
    number = text_at(members(body), "id")
    subject = f"{topic.partition('/')[0]}/{number}" if topic and number else shop or source.name
    found = {"id": _id(headers, topic, body), "type": topic, "subject": subject, "shopdomain": shop}
    found["time"] = moment(headers.get("x-shopify-triggered-at")) or ""
    return {name: value for name, value in found.items() if value}


def sign(source: Source, _headers: Headers, body: bytes, _now: datetime) -> dict[str, str]:
    """X-Shopify-Hmac-SHA256."""
    return {_HEADER: base64.b64encode(hmac.digest(first_key(source), body, "sha256")).decode()}


def _id(headers: Headers, topic: str, body: bytes) -> str:
    """An id that stays the same when Shopify sends a webhook again.

    The event's id does, but webhooks of several topics or resources may share it, so a digest of topic and body is added. The
    webhook's own id is documented to change with each sending.
    """
    made = digest(octets(topic), body)
    if event := headers.get("x-shopify-event-id"):
        return f"{event}-{made[:16]}"
    return headers.get("x-shopify-webhook-id") or made


def sample(fresh: str, now: datetime) -> Sample:
    """An order that was created."""
    headers = {
        "content-type": JSON,
        "x-shopify-topic": "orders/create",
        "x-shopify-shop-domain": "acme.myshopify.com",
        "x-shopify-event-id": fresh,
        "x-shopify-webhook-id": fresh,
        "x-shopify-triggered-at": iso(now),
    }
    return headers, {"id": 820982911946154508, "email": "jon@example.com", "total_price": "42.00", "currency": "EUR"}


KIND = Kind(verify, secrets_alone, sign, describe, sample=sample, extensions=("shopdomain",))
