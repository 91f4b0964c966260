"""Step 7, deliver: the verdict on one try. Pure; the sender returns a receipt, from which this decides."""

from datetime import datetime

from pipeline.delivery.backoff import next_attempt
from schemas.delivery import EXPIRED, GONE, REFUSED, UNSENDABLE, Delivery, Receipt, Settlement
from schemas.endpoint import Endpoint


def judge(delivery: Delivery, endpoint: Endpoint, receipt: Receipt, now: datetime, random: float) -> Settlement:
    """The verdict: delivered on 2xx; dead on 410, when refused or unsendable, or when schedule or age have ended; else retry.

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
    """Whether the delivery must not be tried at `at`, because it will be older than the endpoint's `max_age`."""
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
