"""Publishes mails to the inbox as events, with confirms, for pulls and imports."""

import time
from collections.abc import Sequence
from datetime import UTC
from typing import Final

from ops.errors import OpsError
from ops.runtime.blobs import Blobs
from ops.telemetry.tracing.mail_spans import current_pull
from pipeline.errors import BlobsAway
from pipeline.mail.event_attributes import event_id, read_attributes
from schemas.mailbox import BACKFILL, CONTENT_TYPE, EVENT_TYPE, Mailbox, MailItem, RawMail
from schemas.source import Source
from schemas.trace import TraceContext
from workers.amqp.confirm_window import Outgoing
from workers.amqp.inbox_message import to_inbox
from workers.amqp.publisher_thread import PublisherThread

PATIENCE: Final = 20.0  # seconds for the broker to take a batch
_LOOK: Final = 0.05  # seconds between two tries while the broker is unavailable


class Untaken(OpsError):
    """The broker or the blob store did not take all of a batch.

    It may have taken some: publish the whole batch again, the ledger drops the duplicates.
    """


class MailIntake:
    """Publishes mails. Any thread may call `accept`, several at once."""

    def __init__(self, publisher: PublisherThread, blobs: Blobs, patience: float = PATIENCE) -> None:
        """`patience`: seconds to wait for an unavailable broker."""
        self._publisher = publisher
        self._blobs = blobs
        self._patience = patience

    def accept(self, mailbox: Mailbox, mails: Sequence[RawMail]) -> list[MailItem]:
        """Returns once every mail is durable in the broker, with the items to be recorded, in order.

        Large mails are durable in the blob store before that. Only then may a cursor that moves past them be stored. Mails with
        the same event id are published once. Raises `Untaken` if the broker or the blob store stays unavailable.
        """
        items: list[MailItem] = []
        outgoing: dict[str, Outgoing] = {}
        pull, began, traced = current_pull(), time.time_ns(), []
        for mail in mails:
            item, attributes = described(mailbox, mail)
            items.append(item)
            if attributes["id"] not in outgoing:
                publishing = None if pull is None else pull.publishing(attributes)
                hop = None
                if publishing is not None:
                    traced.append(publishing)
                    hop = publishing.span
                outgoing[attributes["id"]] = self._outgoing(mailbox, attributes, mail.raw, hop)
        self._publish(list(outgoing.values()))
        if pull is not None:
            pull.published(_source(mailbox), traced, began)
        return items

    def _outgoing(self, mailbox: Mailbox, attributes: dict[str, str], raw: bytes, hop: TraceContext | None) -> Outgoing:
        try:
            return to_inbox(_source(mailbox), attributes, self._blobs.keep(mailbox.tenant, raw), hop)
        except BlobsAway as error:
            raise Untaken(str(error)) from error

    def _publish(self, left: Sequence[Outgoing]) -> None:
        deadline = time.monotonic() + self._patience
        while left:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                why = self._publisher.ready() or "it did not confirm them in time"
                raise Untaken(f"the broker did not take {len(left)} mails: {why}")
            taken = self._publisher.publish_all(left, seconds)
            left = [message for message, durable in zip(left, taken, strict=True) if not durable]
            if left:
                time.sleep(_LOOK)


def described(mailbox: Mailbox, mail: RawMail) -> tuple[MailItem, dict[str, str]]:
    """The item that records a mail, and the attributes of its event."""
    id_ = mail.event_id or event_id(mail.raw)
    read = read_attributes(mail.raw, mailbox.subject, mailbox.username, mailbox.name)
    attributes = {
        "id": id_,
        "source": mailbox.name,
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "subject": read.subject,
        "time": mail.internal_date.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": CONTENT_TYPE,
    }
    if mail.backfill:
        attributes[BACKFILL] = "true"
    item = MailItem(mail.source_key, mail.folder, read.message_id, len(mail.raw), mail.internal_date, id_)
    return item, attributes


def _source(mailbox: Mailbox) -> Source:
    return Source(mailbox.tenant, mailbox.name, mailbox.kind)
