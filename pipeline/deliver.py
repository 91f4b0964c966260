"""Room 7, deliver: what one try came to. Pure; whoever sends gives a receipt, this gives the verdict."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from pipeline.backoff import next_attempt
from schemas.delivery import Delivery, Receipt, Settlement
from schemas.endpoint import Endpoint

GONE = 410

#: The error of a receipt for what cannot be made into a request at all; trying again would not help.
UNSENDABLE = "unsendable"

#: The error of a receipt for what the other side will never take: an SMTP server's 5yz for the mail.
REFUSED = "refused"

#: The reason of a dead letter for what became older than its endpoint allows.
EXPIRED: Final = "expired"

#: Errors that the endpoint has no part in: they say nothing of its health.
OURS: Final = frozenset({UNSENDABLE, "internal", "proxy", "broker"})


def judge(delivery: Delivery, endpoint: Endpoint, receipt: Receipt, now: datetime, random: float) -> Settlement:
    """Delivered on 2xx; dead on 410, when refused or unsendable, and when schedule or age have ended; else tried again.

    `random` in [0, 1) chooses the jitter.
    """
    attempt = delivery.attempts + 1
    if receipt.error is None:
        return Settlement(delivery.id, attempt, "delivered", receipt, None)
    due = next_attempt(endpoint.retry, attempt - delivery.schedule_from, now, receipt.retry_after, random)
    too_old = due is not None and is_too_old(delivery, endpoint, due)
    reason = _reason(endpoint, receipt, due) or (EXPIRED if too_old else None)
    if reason is not None:
        return Settlement(delivery.id, attempt, "dead", receipt, None, reason)
    return Settlement(delivery.id, attempt, "retry", receipt, due)


def is_too_old(delivery: Delivery, endpoint: Endpoint, at: datetime) -> bool:
    """Whether it is not to be tried at `at`, because the endpoint's `max_age` will be over."""
    if endpoint.max_age is None:
        return False
    return (at - (delivery.age_from or delivery.created_at)).total_seconds() > endpoint.max_age


def _reason(endpoint: Endpoint, receipt: Receipt, due: datetime | None) -> str | None:
    if receipt.status == GONE and endpoint.transport == "http":
        return "gone"
    if receipt.wish == "disable":
        return "disabled"
    if receipt.wish == "abort" or receipt.error == REFUSED:
        return "refused"
    if receipt.error == UNSENDABLE:
        return "poison"
    return "exhausted" if due is None else None


def disabling(settlement: Settlement) -> str | None:
    """What the answer said for its endpoint to be disabled, also one that took the event; None when it said no such thing."""
    if settlement.reason == "gone":
        return f"it answered {GONE} Gone"
    return "it answered webhook-delivery: disable" if settlement.receipt.wish == "disable" else None


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110 §10.2.3): a number, or a date as seen from `now`.

    None when there is none or it cannot be read; never negative.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def summary(receipt: Receipt) -> str | None:
    """What went wrong, in one line for an operator; None when nothing did."""
    return f"{receipt.error}: {receipt.detail}" if receipt.error and receipt.detail else receipt.error
