"""Step 7, deliver, over SMTP: an event as an RFC 5322 message."""

from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from pipeline.delivery.signing import webhook_id
from pipeline.delivery.template import MAX_SUBJECT
from schemas.config.smtp_target import SmtpTarget
from schemas.delivery import Delivery

#: 7-bit encoding, which every server accepts.
_POLICY = SMTP.clone(cte_type="7bit")


def mail_message(target: SmtpTarget, delivery: Delivery, event_id: str, rendered: dict[str, str], now: datetime) -> bytes:
    """The mail, with CRLF line ends. Its Message-ID is the same on every try, so that recipients can recognise duplicates.

    No event can inject a header: line ends and control characters in the subject become spaces. The mail is marked as
    generated (RFC 3834), so that no automatic reply comes back. Raises ValueError for invalid addresses.
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
    """`<fingerprint.delivery@domain of the sender>`, without the event's content."""
    return f"<{delivery.fingerprint.hex()}.{delivery.id}@{bare(target.sender).rpartition('@')[2]}>"


def bare(address: str) -> str:
    """The address without its display name: `a@b.example` of `Shop <a@b.example>`."""
    return parseaddr(address)[1]


def _one_line(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_SUBJECT])
    return " ".join(plain.split())[:MAX_SUBJECT]
