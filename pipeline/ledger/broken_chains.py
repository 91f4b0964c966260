"""Finds chains whose head and entries disagree, and the messages on them, so that ingest can set those aside and go on.

A chain is suspect when Postgres refuses an entry of a batch for any reason other than its fingerprint. It is broken while its
head is not its last entry, or content or deliveries exist for entries that it does not have (`entries.broken_chains`).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from pipeline.dedupe import first_of_each, looked_up, sift
from pipeline.store.ledger import entries as ledger_entries
from schemas.entry import BrokenChain
from schemas.event import Event


def held_up(
    conn: Connection, messages: Sequence[Sequence[Event]], broken: Mapping[bytes, BrokenChain]
) -> dict[int, BrokenChain]:
    """The indexes of those `messages`, each a sequence of events, that would add to a `broken` chain; with the chain.

    A duplicate adds nothing. A message is recorded whole or not at all.
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
