"""Step 8, settle: the verdicts on many tries, written in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection

from pipeline.delivery.breaker import DEFAULT, BreakerPolicy
from pipeline.delivery.settle_endpoint import HealthChange, disable, health_queries, reckon
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import deliveries, endpoint_health, notify, ordering, settling
from pipeline.store.round_trip import together
from schemas.dead_letter import DeadLetter
from schemas.delivery import EXPIRED, Delivery, Tried, summary


@dataclass(frozen=True, slots=True)
class Settled:
    """What was written: the deliveries whose lease still held, the endpoints whose health changed, and those disabled."""

    tried: Sequence[Tried]
    changes: Sequence[HealthChange]
    disabled: Mapping[int, str]


def settle(
    conn: Connection, tried: Sequence[Tried], now: datetime, policy: BreakerPolicy = DEFAULT, random: float = 0.0
) -> Settled:
    """Writes the state and the attempt of each delivery whose lease still holds, and updates the health of its endpoint.

    Runs in the caller's transaction: if that does not commit, the events are sent again under the same ids. A dead delivery
    also becomes a dead letter. At an ordered endpoint, the next delivery of the subject becomes due. An endpoint that answered
    410, asked to be disabled, or has only failed for as long as the policy allows, is disabled: nothing more is sent there.

    One round trip, and up to four more: for dead letters, a turn that was passed on, a health that changes, what is disabled.
    """
    wanted = [(each.delivery.lease, each.settlement) for each in tried]
    turns, health = ordering.pass_on_queries(_turns(tried), now), health_queries(tried)
    found = together(conn, [settling.settle_query(wanted, now), *turns, *health])
    written, due = settling.ids(found[0]), ordering.endpoints(found[len(turns)]) if turns else ()
    settled = [each for each in tried if each.delivery.id in written]
    dead_letters.bury(conn, [_dead_letter(each) for each in settled if each.settlement.outcome == "dead"], now)
    if due:
        notify.send(conn, due)
    changes = reckon(conn, settled, endpoint_health.healths(found[-1]), now, policy, random)
    return Settled(settled, changes, disable(conn, settled, changes, now, policy))


def expire(conn: Connection, held: Sequence[Delivery], now: datetime) -> list[Delivery]:
    """Buries deliveries that became too old before their next try; returns those whose lease still held."""
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


def _dead_letter(tried: Tried) -> DeadLetter:
    settlement = tried.settlement
    detail = summary(settlement.receipt) or "no error"
    buried = _buried(tried.delivery, settlement.reason or "exhausted", detail, settlement.attempt)
    return replace(buried, error=settlement.receipt.error)


def _buried(delivery: Delivery, reason: str, detail: str, attempts: int) -> DeadLetter:
    """A delivery's dead letter, with what an operator needs. The content stays in the ledger alone, where it can be erased."""
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
