"""The chains that ingest has set aside while they are broken."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.runtime.db import Connection, Engine, constraint, sqlstate, transaction
from pipeline.ledger import broken_chains
from pipeline.store.admin import notices
from pipeline.store.ledger import entries as ledger_entries
from schemas.entry import BrokenChain
from schemas.event import Event
from workers.ingest.operator_notices import Notices

log = structlog.get_logger()

FINGERPRINT: Final = "entry_fingerprint_key"  # the constraint that two writers violate by recording one event concurrently
MOST: Final = 10_000  # chains that are remembered; a forgotten one is found again when Postgres refuses an append

_INTEGRITY: Final = "23"  # class of SQLSTATEs


def is_race(error: BaseException) -> bool:
    """Whether another writer has recorded an event of the batch meanwhile; at the next attempt it is a duplicate."""
    return constraint(error) == FINGERPRINT


class ChainsAside:
    """Remembers the broken chains, so that they cost a batch one query at most."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._broken: dict[bytes, BrokenChain] = {}

    def blames(self, error: BaseException) -> bool:
        """Whether `error` may be due to a broken chain."""
        return sqlstate(error).startswith(_INTEGRITY) and not is_race(error)

    def find(self, engine: Engine, events: Sequence[Event]) -> bool:
        """Look for broken chains among those of `events`; give whether any was not known before."""
        with transaction(engine) as conn:
            broken = broken_chains.broken(conn, events)
        found = {key: chain for key, chain in broken.items() if key not in self._broken}
        if len(self._broken) + len(found) > MOST:
            self._broken.clear()
        self._broken.update(found)
        for chain in found.values():
            self._tell(chain)
        return bool(found)

    def held_up(self, conn: Connection, messages: Sequence[Sequence[Event]]) -> Mapping[int, BrokenChain]:
        """The messages, each given by its events, that would extend a chain that is set aside and still broken."""
        if not self._broken:
            return {}
        touched = self._broken.keys() & {event.chain_key for message in messages for event in message}
        if not touched:
            return {}
        still = ledger_entries.broken_chains(conn, touched)
        for key in touched - still.keys():
            mended = self._broken.pop(key)
            log.info("chain_mended", tenant=mended.tenant, chain=mended.chain_id.hex)
        self._broken.update(still)
        return broken_chains.held_up(conn, messages, still) if still else {}

    def _tell(self, chain: BrokenChain) -> None:
        log.error("chain_set_aside", tenant=chain.tenant, chain=chain.chain_id.hex, found=chain.fault)
        note = partial(
            notices.note_broken, tenant=chain.tenant, chain_id=chain.chain_id, detail=chain.detail, now=datetime.now(UTC)
        )
        self._notices.tell(("chain_broken", chain.chain_id), note)
