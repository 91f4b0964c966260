"""Statements on deliveries whose dead letters an operator has decided about: due again, or given up."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.store.deliveries import deliveries, notify

# Due at once, at an ordered endpoint in its turn, or paused while the endpoint is disabled. Schedule and age restart; the
# count of attempts does not.
REVIVE = text("""
    UPDATE delivery SET state = CASE WHEN endpoint.state = 'disabled' THEN 'paused' ELSE 'pending' END,
                        next_attempt_at = CASE WHEN endpoint.state <> 'disabled' AND NOT ordered
                                               THEN CAST(:now AS timestamptz) END,
                        settled_at = NULL, schedule_from = attempts, age_from = :now
    FROM endpoint WHERE endpoint.id = endpoint_id AND delivery.id = ANY(CAST(:ids AS bigint[])) AND delivery.state = 'dead'
    RETURNING endpoint_id, chain_id, ordered""")

# A delivery at which an actor failed is not dead: it waits, at most until its lease ends.
HASTEN = text("""
    UPDATE delivery SET next_attempt_at = :now
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'pending' AND next_attempt_at > :now""")

# A worker that holds a lease on the delivery then finds that it no longer has it.
GIVE_UP = text("""
    UPDATE delivery SET state = 'discarded', next_attempt_at = NULL, lease = NULL, lease_until = NULL,
                        settled_at = coalesce(settled_at, :now)
    WHERE id = ANY(CAST(:ids AS bigint[])) AND state = ANY(CAST(:states AS text[]))
    RETURNING endpoint_id, chain_id, ordered""")

_ALIVE = ("pending", "leased", "paused")


def revive(conn: Connection, delivery_ids: Sequence[int], now: datetime) -> None:
    """Makes deliveries due at once: dead ones with a fresh schedule, waiting ones unchanged. Notifies the relays."""
    if not delivery_ids:
        return
    asked = {"ids": list(delivery_ids), "now": now}
    conn.execute(HASTEN, asked)
    revived = conn.execute(REVIVE, asked).all()
    deliveries.pass_on(conn, {(row.endpoint_id, row.chain_id) for row in revived if row.ordered}, now)
    notify.send(conn)


def give_up(conn: Connection, dead: Sequence[int], failed: Sequence[int], now: datetime) -> None:
    """Ends deliveries for good: those in `dead`, and those in `failed`, at which an actor failed, if they are unfinished."""
    for ids, states in ((dead, ("dead",)), (failed, _ALIVE)):
        if ids:
            ended = conn.execute(GIVE_UP, {"ids": list(ids), "states": list(states), "now": now}).all()
            deliveries.pass_on(conn, {(row.endpoint_id, row.chain_id) for row in ended if row.ordered}, now)
