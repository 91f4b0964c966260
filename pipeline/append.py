"""Rooms 4 to 6 in one transaction: dedupe, chain, fan out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from pipeline.chain import SALT_BYTES, extend_all
from pipeline.dedupe import Conflict, first_of_each, looked_up, sift
from pipeline.errors import ChainBroken
from pipeline.fanout import Subscriptions, in_turn, pairs, plan
from pipeline.store import deliveries, ledger, mail_documents, turns
from schemas.delivery import Planned
from schemas.entry import Entry
from schemas.event import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Appended:
    """What one batch came to: the new entries in chain order, the number of duplicates, of deliveries planned.

    `conflicts` are those of the duplicates whose content is not what was recorded.
    """

    entries: Sequence[Entry]
    duplicates: int
    planned: int
    conflicts: Sequence[Conflict] = ()


def append(conn: Connection, events: Sequence[Event], subscribed: Subscriptions, now: datetime) -> Appended:
    """Records each new event of `events` once, in their order within each chain, and plans its deliveries.

    Runs in the caller's transaction and holds the heads of all touched chains until it ends: nothing is durable before
    COMMIT. An event whose (tenant, source, origin, id) is in the ledger, or earlier in `events`, is a duplicate. A writer that
    records the same event at the same time makes this raise a unique violation: roll back and append again.
    """
    firsts = first_of_each(events)
    known = ledger.known_fingerprints(conn, looked_up(firsts))
    sifted = sift(events, firsts, ledger.recorded(conn, known) if known else {})
    fresh = sifted.fresh
    if not fresh:
        return Appended((), len(events), 0, sifted.conflicts)
    subjects = {event.chain_key: (event.tenant, event.subject) for event in fresh}
    ledger.make_chains(conn, subjects, os.urandom(16 * len(subjects)))
    heads = ledger.lock_heads(conn, subjects)
    if len(heads) != len(subjects):
        raise ChainBroken(f"{len(subjects) - len(heads)} chains vanished while their heads were being locked")
    entries, moved = extend_all(heads, fresh, _microseconds(now), os.urandom(SALT_BYTES * len(fresh)))
    ledger.insert_entries(conn, entries)
    mail_documents.owe(conn, entries)
    ledger.move_heads(conn, moved)
    planned = _in_turn(conn, plan(entries, subscribed))
    deliveries.insert_planned(conn, planned, now)
    return Appended(entries, len(events) - len(entries), len(planned), sifted.conflicts)


def _in_turn(conn: Connection, planned: Sequence[Planned]) -> Sequence[Planned]:
    """The heads are held, so nobody passes a turn on in these chains between this look and COMMIT."""
    ordered = pairs(planned)
    return in_turn(planned, turns.busy(conn, ordered)) if ordered else planned


def _microseconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
