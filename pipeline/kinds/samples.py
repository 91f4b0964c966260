"""A sample message of each kind, as its sender would send it, before it is signed: for trying a source out."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from pipeline.errors import Rejected
from pipeline.forms import FORM
from pipeline.rules import DIGEST, FIELD, HEADER, Reader
from schemas.source import Source

JSON: Final = "application/json"

Sample = tuple[dict[str, str], dict[str, Any]]  # headers, and the members of a JSON object or the fields of a form


def sample(source: Source, fresh: str, now: datetime) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a message of `source`, whose id is `fresh`, or made of it where that has a form of its own.

    What the source's rules ask for is in it.
    """
    headers, content = SAMPLES[source.kind](fresh, now)
    wanted = {"id": source.id, "type": source.type, "subject": source.subject}
    for name, rule in wanted.items():
        if rule is not None and not _reads(headers, content, rule):
            _add(headers, content, rule, fresh if name == "id" else f"sample.{name}")
    return headers, _written(headers, content)


def _webhook(fresh: str, now: datetime) -> Sample:
    content = {"id": fresh, "type": "order.paid", "subject": "order-7", "time": _iso(now), "amount": 42}
    return {"content-type": JSON, "webhook-id": fresh}, content


def _plain(fresh: str, now: datetime) -> Sample:
    headers, content = _webhook(fresh, now)
    return {name: value for name, value in headers.items() if name != "webhook-id"}, content


def _github(fresh: str, _now: datetime) -> Sample:
    headers = {
        "content-type": JSON,
        "user-agent": "GitHub-Hookshot/sample",
        "x-github-event": "push",
        "x-github-delivery": fresh,
    }
    return headers, {"ref": "refs/heads/main", "repository": {"full_name": "acme/shop"}, "pusher": {"name": "octocat"}}


def _stripe(fresh: str, now: datetime) -> Sample:
    paid = {"id": "pi_sample", "object": "payment_intent", "amount": 4200, "currency": "eur", "status": "succeeded"}
    event = {"id": f"evt_{fresh}", "object": "event", "type": "payment_intent.succeeded", "created": int(now.timestamp())}
    return {"content-type": "application/json; charset=utf-8"}, {**event, "livemode": False, "data": {"object": paid}}


def _slack(fresh: str, now: datetime) -> Sample:
    said = {"type": "message", "channel": "C0SAMPLE", "user": "U0SAMPLE", "text": "hello"}
    about = {"event_id": f"Ev{fresh}", "event_time": int(now.timestamp()), "team_id": "T0SAMPLE"}
    return {"content-type": JSON}, {"type": "event_callback", **about, "event": said}


def _shopify(fresh: str, now: datetime) -> Sample:
    headers = {
        "content-type": JSON,
        "x-shopify-topic": "orders/create",
        "x-shopify-shop-domain": "acme.myshopify.com",
        "x-shopify-event-id": fresh,
        "x-shopify-webhook-id": fresh,
        "x-shopify-triggered-at": _iso(now),
    }
    return headers, {"id": 820982911946154508, "email": "jon@example.com", "total_price": "42.00", "currency": "EUR"}


def _twilio(fresh: str, _now: datetime) -> Sample:
    told = {"From": "+14158675309", "To": "+18005551212", "Body": "hello", "SmsStatus": "received"}
    return {"content-type": FORM}, {"MessageSid": f"SM{fresh}", "AccountSid": "AC_sample", **told}


SAMPLES: Final[Mapping[str, Callable[[str, datetime], Sample]]] = MappingProxyType(
    {
        "standard-webhooks": _webhook,
        "github": _github,
        "stripe": _stripe,
        "slack": _slack,
        "shopify": _shopify,
        "twilio": _twilio,
        "hmac": _plain,
        "token": _plain,
        "none": _plain,
    }
)


def _iso(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _written(headers: Mapping[str, str], content: Mapping[str, Any]) -> bytes:
    return urlencode(content).encode() if headers["content-type"] == FORM else orjson.dumps(content)


def _reads(headers: Mapping[str, str], content: Mapping[str, Any], rule: str) -> bool:
    try:
        return bool(Reader(headers, _written(headers, content)).read(rule))
    except Rejected:
        return False


def _add(headers: dict[str, str], content: dict[str, Any], rule: str, value: str) -> None:
    """Puts `value` where `rule` looks for it, if a sample of this form has such a place."""
    if rule.startswith(HEADER):
        headers[rule[len(HEADER) :].strip().lower()] = value
    elif rule.startswith(FIELD):
        content[rule[len(FIELD) :].strip()] = value
    elif rule != DIGEST:
        *path, last = (step.replace("~1", "/").replace("~0", "~") for step in rule.split("/")[1:])
        for step in path:
            deeper = content.setdefault(step, {})
            if not isinstance(deeper, dict):
                return
            content = deeper
        content[last] = value
