"""Between the rooms: messages on a chain whose head and entries disagree are set aside, so that everybody else's go on.

A chain is suspected when Postgres refuses an entry of a batch for another reason than its fingerprint, and is broken when its
head is not its last entry, or content or deliveries are there of entries that it has not. It is whole again when it is not.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from pipeline.dedupe import first_of_each, looked_up, sift
from pipeline.store.ledger import entries as ledger_entries
from schemas.entry import BrokenChain
from schemas.event import Event


def broken(conn: Connection, events: Collection[Event]) -> dict[bytes, BrokenChain]:
    """Those of the events' chains that are broken, by chain key, as one look at the ledger has them."""
    return ledger_entries.broken_chains(conn, {event.chain_key for event in events})


def held_up(
    conn: Connection, messages: Sequence[Sequence[Event]], broken: Mapping[bytes, BrokenChain]
) -> dict[int, BrokenChain]:
    """Which of `messages`, each by its events, would add to a `broken` chain, and to which one.

    A duplicate adds nothing, and a message is recorded whole or not at all.
    """
    events = [event for message in messages for event in message if event.chain_key in broken]
    firsts = first_of_each(events)
    known = ledger_entries.known_fingerprints(conn, looked_up(firsts))
    fresh = {event.fingerprint for event in sift(events, firsts, ledger_entries.recorded(conn, known) if known else {}).fresh}
    held = {}
    for number, message in enumerate(messages):
        for event in message:
            if event.fingerprint in fresh:
                held[number] = broken[event.chain_key]
    return held
