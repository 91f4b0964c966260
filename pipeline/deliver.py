"""Room 7, deliver: what one try came to. Pure; whoever sends gives a receipt, this gives the verdict."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.backoff import next_attempt
from schemas.delivery import Delivery, Receipt, Settlement
from schemas.endpoint import Endpoint

GONE = 410

#: The error of a receipt for what cannot be made into a request at all; trying again would not help.
UNSENDABLE = "unsendable"


def judge(delivery: Delivery, endpoint: Endpoint, receipt: Receipt, now: datetime, random: float) -> Settlement:
    """Delivered on 2xx; dead on 410, when it cannot be sent, and when the schedule has ended; else to be tried again.

    `random` in [0, 1) chooses the jitter.
    """
    attempt = delivery.attempts + 1
    if receipt.error is None:
        return Settlement(delivery.id, attempt, "delivered", receipt, None)
    due = next_attempt(endpoint.retry, attempt, now, receipt.retry_after, random)
    reason = _reason(receipt, due)
    if reason is not None:
        return Settlement(delivery.id, attempt, "dead", receipt, None, reason)
    return Settlement(delivery.id, attempt, "retry", receipt, due)


def _reason(receipt: Receipt, due: datetime | None) -> str | None:
    if receipt.status == GONE:
        return "gone"
    if receipt.error == UNSENDABLE:
        return "poison"
    return "exhausted" if due is None else None


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110 §10.2.3): a number, or a date as seen from `now`.

    None when there is none or it cannot be read; never negative.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def summary(receipt: Receipt) -> str | None:
    """What went wrong, in one line for an operator; None when nothing did."""
    return f"{receipt.error}: {receipt.detail}" if receipt.error and receipt.detail else receipt.error
