"""Room 7, deliver, by mail: an event as a message of RFC 5322."""

from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from pipeline.delivery.signing import webhook_id
from pipeline.delivery.template import MAX_SUBJECT
from schemas.config.smtp_target import SmtpTarget
from schemas.delivery import Delivery

#: Seven bits, so that every server takes it.
_POLICY = SMTP.clone(cte_type="7bit")


def mail_message(target: SmtpTarget, delivery: Delivery, event_id: str, rendered: dict[str, str], now: datetime) -> bytes:
    """The mail, lines ended by CRLF. Its Message-ID is the same on every try, so that the second is known for what it is.

    Whatever an event holds, it adds no header: line ends and control characters in the subject become spaces. Marked as
    made by a machine (RFC 3834), so that nobody's machine answers. Raises ValueError for addresses that are none.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = target.sender
    message["To"] = ", ".join(target.to)
    message["Subject"] = _one_line(rendered["subject"])
    message["Date"] = format_datetime(now)
    message["Message-ID"] = message_id(target, delivery)
    message["Auto-Submitted"] = "auto-generated"
    message["Webhook-Id"] = webhook_id(event_id, delivery.fingerprint)
    message.set_content(rendered["text"].encode(errors="replace").decode())
    return message.as_bytes()


def message_id(target: SmtpTarget, delivery: Delivery) -> str:
    """`<event.delivery@domain of the sender>`."""
    return f"<{delivery.fingerprint.hex()}.{delivery.id}@{bare(target.sender).rpartition('@')[2]}>"


def bare(address: str) -> str:
    """The address without the name before it: `a@b.example` of `Shop <a@b.example>`."""
    return parseaddr(address)[1]


def _one_line(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_SUBJECT])
    return " ".join(plain.split())[:MAX_SUBJECT]
