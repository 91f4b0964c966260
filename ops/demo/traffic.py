"""The demo's traffic: what is sent, how, and what must become of it."""

import base64
import hmac
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SHOP: Final = "whsec_" + base64.b64encode(b"the demo's shop signs with this.").decode()
GITHUB: Final = "the demo's GitHub signs with this"
ENDPOINTS: Final = ("works", "recovers", "broken")

CONFIG: Final = """\
# What `waxseal demo` applies; `waxseal apply` takes any file like it.
tenants: [{{name: acme}}]
sources:
  - {{tenant: acme, name: shop, kind: standard-webhooks, secrets: ["{shop}"], subject: /order, type: /type}}
  - {{tenant: acme, name: github, kind: github, secrets: ["{github}"], subject: /repository/full_name}}
  - {{tenant: acme, name: orders, kind: amqp}}
endpoints:
  - {{tenant: acme, name: works, url: "{url}/works", secrets: ["{works}"]}}
  - tenant: acme
    name: recovers
    url: {url}/recovers
    secrets: ["{recovers}"]
    filter: {{prefix: {{type: "order."}}}}
    retry: [1s, 1s, 1s]
  - tenant: acme
    name: broken
    url: {url}/broken
    secrets: ["{broken}"]
    filter: {{exact: {{type: order.paid}}}}
    retry: [1s, 1s]
"""

Properties = Mapping[str, Any]
Publish = Callable[[str, str, bytes, Properties], None]  # AMQP URL, routing key, body, properties


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of the demo: what it is, how it is sent, and what must become of it."""

    what: str
    id: str
    send: Callable[[], str]  # gives the answer
    answer: str  # that it must get
    subject: str | None = None  # under which it must be recorded; None: it must not be
    repeats: bool = False  # it was recorded before and must not be again
    planned_for: Sequence[str] = field(default=())  # the endpoints that must get a delivery
    buried: str | None = None  # the reason of the dead letter that it must become


def traffic(run: str, ingress: str, amqp: str, publish: Publish) -> list[Sent]:
    """All messages, in their order. `run` is part of every id, so that the demo can be run again on the same ledger."""

    def publishing(body: bytes, **properties: Any) -> Callable[[], str]:
        def send() -> str:
            publish(amqp, "acme.orders", body, properties)
            return "confirmed"

        return send

    return [*_webhooks(run, ingress), *_events(run, publishing)]


def _webhooks(run: str, ingress: str) -> list[Sent]:
    order, repository, id_ = f"order-{run}", f"acme/shop-{run}", f"pay-{run}"
    paid = json.dumps({"type": "order.paid", "order": order, "amount": 42}).encode()
    pushed = json.dumps({"repository": {"full_name": repository}, "ref": "refs/heads/main"}).encode()
    forged = "whsec_" + base64.b64encode(os.urandom(32)).decode()

    def pay(id_: str, secret: str) -> Callable[[], str]:
        return lambda: _post(f"{ingress}/in/acme/shop", paid, _standard_webhook(id_, paid, secret))

    def push() -> str:
        signature = "sha256=" + hmac.digest(GITHUB.encode(), pushed, "sha256").hex()
        headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": f"push-{run}", "X-Hub-Signature-256": signature}
        return _post(f"{ingress}/in/acme/github", pushed, headers)

    return [
        Sent("webhook, signed", id_, pay(id_, SHOP), "202", order, planned_for=ENDPOINTS),
        Sent("the same once more", id_, pay(id_, SHOP), "202", order, repeats=True),
        Sent("webhook, forged", f"forged-{run}", pay(f"forged-{run}", forged), "401"),
        Sent("GitHub push, signed", f"push-{run}", push, "202", repository, planned_for=ENDPOINTS[:1]),
    ]


def _events(run: str, publishing: Callable[..., Callable[[], str]]) -> list[Sent]:
    order, pack, ship, note = f"order-{run}", f"pack-{run}", f"ship-{run}", f"note-{run}"
    binary = publishing(b'{"boxes": 2}', content_type="application/json", headers=_binary(pack, "order.packed", order))
    structured = publishing(_structured(ship, "order.shipped", order), content_type="application/cloudevents+json")
    plain = publishing(b"left at the door", message_id=note, type="courier.note", headers={"subject": order})
    lost = publishing(b"whose am I?", headers={"subject": order})
    return [
        Sent("CloudEvent over AMQP, binary", pack, binary, "confirmed", order, planned_for=ENDPOINTS[:2]),
        Sent("CloudEvent over AMQP, structured", ship, structured, "confirmed", order, planned_for=ENDPOINTS[:2]),
        Sent("plain message over AMQP", note, plain, "confirmed", order, planned_for=ENDPOINTS[:1]),
        Sent("AMQP, but without an id", f"lost-{run}", lost, "confirmed", buried="missing_id"),
    ]


def _binary(id_: str, type_: str, subject: str) -> dict[str, str]:
    attributes = {"specversion": "1.0", "id": id_, "source": "orders", "type": type_, "subject": subject}
    return {f"cloudEvents:{name}": value for name, value in attributes.items()}


def _structured(id_: str, type_: str, subject: str) -> bytes:
    event = {
        "specversion": "1.0",
        "id": id_,
        "source": "orders",
        "type": type_,
        "subject": subject,
        "data": {"carrier": "bike"},
    }
    return json.dumps(event).encode()


def _standard_webhook(id_: str, body: bytes, secret: str) -> dict[str, str]:
    timestamp = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")).decode()
    return {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """The status, as text."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})  # noqa: S310 - our own ingress
    # Without the proxies that the environment may name: the request stays on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=15) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as refused:
        return str(refused.code)
