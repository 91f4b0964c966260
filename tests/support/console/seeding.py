"""Fills a system with what its pages show: ordinary traffic, all kinds of failure, hostile text in every field of a sender."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import pika
from pika.adapters.blocking_connection import BlockingChannel

from ops.runtime.db import make_engine, transaction
from pipeline.mail.event_attributes import event_id, read_attributes
from pipeline.store.mail import mailboxes
from schemas.mailbox import Mailbox
from support.net.sink import Sink
from support.waiting import wait_for
from workers.amqp.topology import IN, RECEIVED

SECRET: Final = "whsec_" + "k" * 43 + "="

#: What a sender may hope that a page takes for its own: marks, scripts, addresses, templates, and characters that are not seen.
HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</title></textarea></pre><svg onload=alert(1)>",
    "javascript:alert(1)//",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "\u202eexe.gpj\u2066\u200b",
    "../../../etc/passwd?x=%00&csrf=1#x",
    "x" * 200,
)
ORDINARY: Final = 60
EVENTS: Final = ORDINARY + len(HOSTILE) + 1  # the mail
UNKNOWN: Final = HOSTILE[:4]  # names of sources that are not configured
HTML: Final = b"<html><script>alert(1)</script><img src=x onerror=alert(1)></html>"

MAIL: Final = (
    b'From: "<script>alert(1)</script>" <eve@evil.example>\r\nTo: support@acme.example\r\n'
    b"Subject: </title><img src=x onerror=alert(1)>\r\nMessage-ID: <1@evil.example>\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"
    b"--B\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script><b onclick=alert(1)>hello</b>\r\n"
    b'--B\r\nContent-Type: text/plain; name="<img src=x onerror=alert(1)>.txt"\r\n'
    b'Content-Disposition: attachment; filename="\\"><svg onload=alert(1)>.exe"\r\n\r\nattached\r\n--B--\r\n'
)


def configure(database: Any, sink: Sink) -> None:
    """Two tenants; one has sources, a mailbox, and an endpoint of each kind of luck."""
    database.add_tenant("acme")
    database.add_tenant("empty")
    database.add_source("orders", "amqp")
    database.add_source("shop", "standard-webhooks", SECRET, type="/type", rate_limit=100)
    only = {"prefix": {"type": "order."}}
    database.add_endpoint("billing", sink.url("/200"), SECRET, retry=[5, 300, 1800])
    warehouse = database.add_endpoint("warehouse", sink.url("/hostile/<script>alert(1)</script>"), SECRET, retry=[])
    database.run(
        "INSERT INTO endpoint_health (endpoint_id, forced) VALUES (%s, true)", warehouse
    )  # every event is tried, and dies
    database.add_endpoint("crm", sink.url("/503"), SECRET, filter=only)  # its breaker opens by itself
    database.add_endpoint("analytics", sink.url("/200"), SECRET, filter=only, rate_limit=50)
    later = database.add_endpoint("archive", sink.url("/200"), SECRET, filter=only)
    database.run("UPDATE endpoint SET state = 'disabled', reason = 'by an operator: moves until Monday' WHERE id = %s", later)
    _mailbox(database)


def _mailbox(database: Any) -> None:
    database.add_source("support", "imap")
    mailbox = Mailbox(
        0, "acme", "support", "imap", "support@acme.example", host="imap.acme.example", subject="address", password="pw"
    )
    ((id_,),) = database.rows("SELECT id FROM source WHERE name = 'support'")
    engine = make_engine(database.url, pool_size=1)
    with transaction(engine) as conn:
        mailboxes.put(conn, mailbox, database.vault.encrypt, datetime.now(UTC), anew=True)
        mailboxes.move(conn, id_, "needs_reauthorization", "the server refuses the password: <b>535</b>", datetime.now(UTC))
    engine.dispose()


def send(channel: BlockingChannel) -> None:
    """Publishes everything, of which `EVENTS` are recorded."""
    for number in range(ORDINARY):
        publish(channel, f"evt_{number}", "order.paid" if number % 3 else "order.created", f"order-{number % 7}")
    for number, text in enumerate(HOSTILE):
        publish(channel, f"{text}{number}"[:250], text, text, {"cloudEvents:note": text, "cloudEvents:source": text}, HTML)
    for text in UNKNOWN:
        channel.basic_publish(IN, f"acme.{text[:40]}", HTML, pika.BasicProperties(message_id=text, headers={text: text}))
    channel.basic_publish(
        IN, "acme.orders", b"no id <script>alert(1)</script>", pika.BasicProperties(headers={"subject": HOSTILE[0]})
    )
    _send_mail(channel)


def publish(
    channel: BlockingChannel, id_: str, type_: str, subject: str, more: dict[str, str] | None = None, body: bytes = b""
) -> None:
    headers = {"cloudEvents:id": id_, "cloudEvents:type": type_, "cloudEvents:subject": subject, "cloudEvents:source": "orders"}
    content = body or json.dumps({"id": id_, "total": 12.5, "lines": [{"sku": "a-1", "count": 2}]}).encode()
    properties = pika.BasicProperties(
        content_type="text/html" if body else "application/json",
        headers={**headers, "cloudEvents:specversion": "1.0", **(more or {})},
        message_id=id_[:250],
    )
    channel.basic_publish(IN, "acme.orders", content, properties)


def _send_mail(channel: BlockingChannel) -> None:
    said = {
        "specversion": "1.0",
        "id": event_id(MAIL),
        "source": "support",
        "type": "email.received",
        "time": "2026-01-01T00:00:00Z",
        "subject": read_attributes(MAIL, "address", "support@acme.example", "support").subject,
    }
    headers = {f"cloudEvents:{name}": value for name, value in said.items()}
    properties = pika.BasicProperties(content_type="message/rfc822", headers=headers)
    channel.basic_publish(RECEIVED, "acme.support", MAIL, properties)


def settled(database: Any) -> None:
    """Waits until everything is recorded, tried, and buried where nobody took it."""
    wait_for(lambda: EVENTS <= database.rows("SELECT count(*) FROM entry WHERE tenant = 'acme'")[0][0], 60)
    open_ = (
        "SELECT count(*) FROM delivery JOIN endpoint ON endpoint.id = endpoint_id WHERE name <> 'crm'"
        " AND (delivery.state = 'leased' OR delivery.state = 'pending' AND attempts = 0)"
    )
    wait_for(lambda: database.rows(open_) == [(0,)], 60)
