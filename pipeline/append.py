"""Steps 4 to 6 in one transaction: dedupe, chain, fan out."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from sqlalchemy import Connection

from pipeline.chain import SALT_BYTES, extend, extend_each
from pipeline.dedupe import Conflict, first_of_each, looked_up, sift
from pipeline.errors import ChainBroken
from pipeline.fanout import Subscriptions, in_turn, pairs, plan
from pipeline.store.config import catalog
from pipeline.store.deliveries import append_few, deliveries, notify, ordering
from pipeline.store.ledger import entries as ledger_entries
from pipeline.store.mail import documents as mail_documents
from pipeline.store.round_trip import together
from schemas.delivery import Planned
from schemas.entry import Entry, Head, ends
from schemas.event import Event

#: Kinds of entries that may be the first of their chain; an erasure's event names another subject than its chain's.
_OPENING = ("heads", "origin")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a transaction reads before it appends a batch."""

    version: int  # of the catalog
    known: Collection[bytes]  # the batch's fingerprints that are in the ledger
    heads: Mapping[bytes, Head]  # locked; empty if a chain may have to be created first
    chains: Collection[bytes] = ()  # in that case, the batch's chains that exist


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of one batch: the new entries in chain order, and the numbers of duplicates and of planned deliveries.

    `conflicts` are the duplicates whose content differs from what was recorded.
    """

    entries: Sequence[Entry]
    duplicates: int
    planned: int
    conflicts: Sequence[Conflict] = ()


def open_batch(conn: Connection, events: Sequence[Event], made: Collection[bytes] = ()) -> Opened:
    """Reads in one round trip what `append` needs first, and the catalog's version.

    `made` are keys of chains that are known to exist. If `events` touch no others, their heads are locked at once. Otherwise
    no head is locked yet: if a transaction created a chain while it held a head, two batches could deadlock.
    """
    if not events:
        return Opened(catalog.version(conn), (), {})
    touched = {event.chain_key for event in events}
    unsure = [key for key in touched if key not in made]
    chains = ledger_entries.chains_query(unsure) if unsure else ledger_entries.heads_query(touched)
    asked = [chains, ledger_entries.fingerprints_query(looked_up(first_of_each(events))), catalog.version_query()]
    found, known, version = together(conn, asked)
    fingerprints = {key for (key,) in known}
    if unsure:
        return Opened(version[0][0], fingerprints, {}, {*(key for (key,) in found), *(touched.difference(unsure))})
    return Opened(version[0][0], fingerprints, ledger_entries.heads(found))


def append(
    conn: Connection,
    events: Sequence[Event],
    subscribed: Subscriptions,
    now: datetime,
    opened: Opened | None = None,
    *,
    round_trip: float = 0.0,
) -> Appended:
    """Records each new event of `events` once, in their order within each chain, and plans its deliveries.

    Runs in the caller's transaction and holds the heads of all touched chains until it ends: nothing is durable before
    COMMIT. An event whose (tenant, source, origin, id) is in the ledger, or earlier in `events`, is a duplicate. Raises a
    unique violation when another writer records the same event at the same time: roll back and append again. `opened` is the
    result of `open_batch`, in this transaction, for these events or more. `round_trip`: seconds to Postgres and back, so that
    fewer of them are made where that saves time.
    """
    opened = opened or open_batch(conn, events)
    firsts = first_of_each(events)
    sifted = sift(events, firsts, ledger_entries.recorded(conn, opened.known) if opened.known else {})
    fresh = sifted.fresh
    if not fresh:
        if events:  # a primary that was killed shows what it had not replicated yet, and duplicates will be acked
            ledger_entries.commit_durably(conn)
        return Appended((), len(events), 0, sifted.conflicts)
    heads = _locked(conn, fresh, opened)
    chained = extend_each(heads, _by_chain(fresh, heads), _microseconds(now), os.urandom(SALT_BYTES * len(fresh)))
    if append_few.suits(fresh, round_trip):
        entries = list(chained)
        planned = _in_turn(conn, plan(entries, subscribed))
        append_few.insert(conn, entries, planned, now)
    else:
        entries = ledger_entries.insert_entries(conn, chained)
        planned = _in_turn(conn, plan(entries, subscribed))
        due = deliveries.insert_planned(conn, planned, now)
        told = [notify.notify_query(due)] if due else []
        together(conn, [ledger_entries.move_heads_query(ends(entries)), *told])
    mail_documents.plan(conn, entries)
    return Appended(entries, len(events) - len(entries), len(planned), sifted.conflicts)


def append_own(conn: Connection, event: Event, kind: str, now: datetime) -> Entry:
    """Records an event of our own as an entry of another kind than "event", at the end of the chain `event.chain_key`.

    It is neither deduplicated nor delivered. Runs in the caller's transaction and holds the chain's head until that ends; a
    caller that locks several chains does so in the order of their keys. Creates the chain of a heads or origin entry; any
    other must exist, else this raises `ChainBroken`. Raises a unique violation when (source, id) was recorded before.
    """
    if kind == "event":
        raise ValueError("an event that came from outside takes `append`, which deduplicates it")
    heads = ledger_entries.lock_heads(conn, [event.chain_key])
    if not heads and kind in _OPENING:
        missing = {event.chain_key: (event.tenant, event.subject)}
        heads = ledger_entries.lock_heads(conn, missing, missing, os.urandom(16))
    if not heads:
        raise ChainBroken(
            f"tenant {event.tenant} has no chain with the key {event.chain_key.hex()} for an entry of kind {kind}"
        )
    entry = extend(heads[event.chain_key], event, _microseconds(now), os.urandom(SALT_BYTES), kind)
    append_few.insert(conn, [entry], (), now)
    return entry


def _locked(conn: Connection, fresh: Sequence[Event], opened: Opened) -> Mapping[bytes, Head]:
    """The heads of all chains of `fresh`, locked."""
    touched = {event.chain_key: (event.tenant, event.subject) for event in fresh}
    heads = opened.heads
    if not heads:
        missing = {key: subject for key, subject in touched.items() if key not in opened.chains}
        heads = ledger_entries.lock_heads(conn, touched, missing, os.urandom(16 * len(missing)))
    if vanished := touched.keys() - heads.keys():
        raise ChainBroken(f"{len(vanished)} chains vanished while their heads were being locked")
    return heads


def _by_chain(events: Sequence[Event], heads: Mapping[bytes, Head]) -> Iterator[Event]:
    """The events chain by chain, each chain's in their order, as in the indexes of what is inserted.

    An index page to which a chain's rows come one after the other splits where they end; if other chains' rows come between
    them, it splits in its middle, and one half stays half empty.
    """
    if len(heads) == len(events):
        return iter(events)
    grouped: dict[bytes, list[Event]] = {key: [] for key in heads}
    for event in events:
        grouped[event.chain_key].append(event)
    return chain.from_iterable(grouped.values())


def _in_turn(conn: Connection, planned: Sequence[Planned]) -> Sequence[Planned]:
    """Marks the deliveries that wait. The heads are locked, so no turn in these chains is passed on between this and COMMIT."""
    ordered = pairs(planned)
    return in_turn(planned, ordering.busy(conn, ordered)) if ordered else planned


def _microseconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
