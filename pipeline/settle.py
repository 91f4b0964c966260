"""Room 8, settle: the verdicts on many tries, written in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection

from pipeline.deliver import disabling, summary
from pipeline.store import deliveries, graves
from schemas.deadletter import DeadLetter
from schemas.delivery import Delivery, Settlement
from schemas.endpoint import Transport


@dataclass(frozen=True, slots=True)
class Tried:
    """A delivery and the verdict on its try."""

    delivery: Delivery
    settlement: Settlement
    transport: Transport = "http"


def settle(conn: Connection, tried: Sequence[Tried], now: datetime) -> list[Tried]:
    """Writes state and attempt of each delivery whose lease still holds; returns those.

    Runs in the caller's transaction: until COMMIT nothing of it counts, and what was sent will be sent again under the same
    id. A dead one becomes a dead letter as well. An endpoint that is gone, or asks for it, is disabled, so that nothing more
    is sent there.
    """
    written = deliveries.settle(conn, [(each.delivery.lease, each.settlement) for each in tried], now)
    settled = [each for each in tried if each.delivery.id in written]
    graves.bury(conn, [_letter(each) for each in settled if each.settlement.outcome == "dead"], now)
    unwanted = {each.delivery.endpoint_id: why for each in settled if (why := disabling(each.settlement))}
    for endpoint_id, why in unwanted.items():
        deliveries.disable(conn, [endpoint_id], f"{why} at {now:%Y-%m-%d %H:%M:%SZ}")
    return settled


def _letter(tried: Tried) -> DeadLetter:
    """What an operator needs to judge it. The content stays in the ledger alone, where it can be erased."""
    delivery, settlement = tried.delivery, tried.settlement
    attributes = orjson.loads(delivery.attributes)
    return DeadLetter(
        stage="deliver",
        reason=settlement.reason or "exhausted",
        detail=summary(settlement.receipt) or "no error",
        error=settlement.receipt.error,
        tenant=delivery.tenant,
        source=attributes["source"],
        endpoint_id=delivery.endpoint_id,
        delivery_id=delivery.id,
        event_id=attributes["id"],
        content_type=attributes["datacontenttype"],
        attempts=settlement.attempt,
        first_at=delivery.created_at,
    )
