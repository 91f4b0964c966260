"""Room 8, settle: the verdicts on many tries, written in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection

from pipeline.delivery.breaker import DEFAULT, BreakerPolicy
from pipeline.delivery.settle_endpoint import HealthChange, disable, reckon
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import deliveries
from schemas.dead_letter import DeadLetter
from schemas.delivery import EXPIRED, Delivery, Tried, summary


@dataclass(frozen=True, slots=True)
class Settled:
    """What was written: the deliveries whose lease still held, the endpoints that fare differently, and those disabled."""

    tried: Sequence[Tried]
    changes: Sequence[HealthChange]
    disabled: Mapping[int, str]


def settle(
    conn: Connection, tried: Sequence[Tried], now: datetime, policy: BreakerPolicy = DEFAULT, random: float = 0.0
) -> Settled:
    """Writes state and attempt of each delivery whose lease still holds, and what that means for its endpoint.

    Runs in the caller's transaction: until COMMIT nothing of it counts, and what was sent will be sent again under the same
    id. A dead one becomes a dead letter as well. Where order matters, the next of its subject is due. An endpoint that is gone,
    asks for it, or does nothing but fail, is disabled, so that nothing more is sent there.
    """
    written = deliveries.settle(conn, [(each.delivery.lease, each.settlement) for each in tried], now)
    settled = [each for each in tried if each.delivery.id in written]
    dead_letters.bury(conn, [_letter(each) for each in settled if each.settlement.outcome == "dead"], now)
    deliveries.pass_on(conn, _turns(settled), now)
    changes = reckon(conn, settled, now, policy, random)
    return Settled(settled, changes, disable(conn, settled, changes, now, policy))


def expire(conn: Connection, held: Sequence[Delivery], now: datetime) -> list[Delivery]:
    """Buries deliveries that became too old before they could be tried; returns those whose lease still held."""
    ended = deliveries.end(conn, [(each.id, each.lease) for each in held], "dead", now, EXPIRED)
    expired = [each for each in held if each.id in ended]
    dead_letters.bury(
        conn, [_buried(each, EXPIRED, "too old before it could be tried", each.attempts) for each in expired], now
    )
    return expired


def _turns(settled: Sequence[Tried]) -> set[tuple[int, UUID]]:
    return {
        (each.delivery.endpoint_id, each.delivery.chain_id)
        for each in settled
        if each.delivery.ordered and each.settlement.outcome != "retry"
    }


def _letter(tried: Tried) -> DeadLetter:
    settlement = tried.settlement
    detail = summary(settlement.receipt) or "no error"
    letter = _buried(tried.delivery, settlement.reason or "exhausted", detail, settlement.attempt)
    return replace(letter, error=settlement.receipt.error)


def _buried(delivery: Delivery, reason: str, detail: str, attempts: int) -> DeadLetter:
    """What an operator needs to judge it. The content stays in the ledger alone, where it can be erased."""
    attributes = orjson.loads(delivery.attributes)
    return DeadLetter(
        stage="deliver",
        reason=reason,
        detail=detail,
        tenant=delivery.tenant,
        source=attributes["source"],
        endpoint_id=delivery.endpoint_id,
        delivery_id=delivery.id,
        event_id=attributes["id"],
        content_type=attributes["datacontenttype"],
        attempts=attempts,
        first_at=delivery.created_at,
    )
