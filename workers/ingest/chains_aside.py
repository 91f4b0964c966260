"""The chains that ingest has set aside while they are broken or cannot be read."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import Connection, Engine, damaged, sqlstate, transaction
from pipeline.ledger import broken_chains
from pipeline.store.admin import notices
from pipeline.store.ledger import entries as ledger_entries
from pipeline.store.ledger import set_aside
from schemas.entry import BrokenChain
from schemas.event import Event
from workers.ingest.failures import is_race
from workers.ingest.operator_notices import Notices

log = structlog.get_logger()

MOST: Final = 10_000  # chains that are remembered; a forgotten one is found again when Postgres refuses an append
AVOID_SECONDS: Final = 60.0  # after the last sign of damage
LOOK_SECONDS: Final = 1.0  # at least, between two looks at the chains that could not be read
LOOK_SHARE: Final = 0.1  # of the time is spent on such looks, or little more
LOOK_LATEST: Final = 30.0  # seconds between two: one that waited for a Postgres that stood still tells nothing of the next

_INTEGRITY: Final = "23"  # class of SQLSTATEs


class ChainsAside:
    """Remembers the broken chains, so that they cost a batch one query at most, and a bounded time if they cannot be read."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._broken: dict[bytes, BrokenChain] = {}
        self._unreadable: set[bytes] = set()  # those of them that Postgres cannot read
        self._next_look = 0.0  # at those, on the monotonic clock
        self._avoid_until = 0.0  # on the monotonic clock
        self._mended: set[bytes] = set()  # those that the database still has as broken

    def load(self, conn: Connection) -> None:
        """Remember the chains that were set aside before this process began."""
        for row in set_aside.still_aside(conn, MOST):
            self._keep(row.key, BrokenChain(row.tenant, "", row.chain_id, row.fault))

    def note_mended(self) -> None:
        """Write down which chains were found whole again; outside of the batch's transaction, which holds the heads."""
        if self._mended and self._notices.write("mended", partial(set_aside.mend, keys=self._mended, now=datetime.now(UTC))):
            self._mended = set()

    @property
    def damage_met(self) -> bool:
        """Whether damaged pages are to be avoided, which costs a round trip."""
        return time.monotonic() < self._avoid_until

    def blames(self, error: BaseException) -> bool:
        """Whether `error` may be due to a broken chain."""
        return (sqlstate(error).startswith(_INTEGRITY) and not is_race(error)) or damaged(error)

    def find(self, engine: Engine, events: Sequence[Event], error: BaseException) -> bool:
        """Look for what caused `error` among the chains of `events`; give whether anything was not known before."""
        new_damage = damaged(error) and not self.damage_met
        if damaged(error):
            self._avoid_until = time.monotonic() + AVOID_SECONDS
        broken = _broken(engine, {event.chain_key: (event.tenant, event.subject) for event in events})
        found = {key: chain for key, chain in broken.items() if key not in self._broken or _differ(chain, self._broken[key])}
        if len(self._broken) + len(found) > MOST:
            self._broken.clear()
            self._unreadable.clear()
        for key, chain in found.items():
            self._keep(key, chain)
            self._tell(key, chain)
        return bool(found) or new_damage

    def unreadable(self, engine: Engine, messages: Sequence[Sequence[Event]]) -> Mapping[int, BrokenChain]:
        """The messages, each given by its events, on chains that Postgres cannot read, duplicates included.

        To be asked before the batch's transaction, which would fail on such a chain.
        """
        if not self._unreadable:
            return {}
        if time.monotonic() >= self._next_look:
            self._look_again(engine)
        found = {}
        for number, message in enumerate(messages):
            for event in message:
                if event.chain_key in self._unreadable:
                    found[number] = self._broken[event.chain_key]
        return found

    def held_up(self, conn: Connection, messages: Sequence[Sequence[Event]]) -> Mapping[int, BrokenChain]:
        """The messages, each given by its events, that would extend a chain that is set aside and still broken."""
        if not self._broken:
            return {}
        touched = self._broken.keys() & {event.chain_key for message in messages for event in message}
        if not touched:
            return {}
        still = ledger_entries.broken_chains(conn, touched)
        self._forget(touched - still.keys())
        self._broken.update(still)
        return broken_chains.held_up(conn, messages, still) if still else {}

    def _look_again(self, engine: Engine) -> None:
        began = time.monotonic()
        known = {key: self._broken[key] for key in self._unreadable}
        found = _broken(engine, {key: (chain.tenant, chain.subject) for key, chain in known.items()})
        self._forget(known.keys() - found.keys())
        for key, chain in found.items():
            self._keep(key, chain)
        ended = time.monotonic()
        if self._unreadable:
            self._avoid_until = ended + AVOID_SECONDS
        self._next_look = ended + min(max(LOOK_SECONDS, (ended - began) / LOOK_SHARE), LOOK_LATEST)

    def _keep(self, key: bytes, chain: BrokenChain) -> None:
        self._broken[key] = chain
        if chain.chain_id is None:
            self._unreadable.add(key)
        else:
            self._unreadable.discard(key)

    def _forget(self, keys: Collection[bytes]) -> None:
        for key in keys:
            mended = self._broken.pop(key)
            self._unreadable.discard(key)
            self._mended.add(key)
            log.info("chain_mended", tenant=mended.tenant, chain=_name(mended))

    def _tell(self, key: bytes, chain: BrokenChain) -> None:
        log.error("chain_set_aside", tenant=chain.tenant, chain=_name(chain), found=chain.fault)
        self._mended.discard(key)
        self._notices.write("aside", partial(set_aside.put, key=key, chain=chain, now=datetime.now(UTC)))
        note: Callable[[Connection], None]
        if chain.chain_id is None:
            note = partial(notices.note_unreadable, tenant=chain.tenant, detail=chain.detail, now=datetime.now(UTC))
            self._notices.tell(("chain_unreadable", chain.tenant), note)
            return
        note = partial(
            notices.note_broken, tenant=chain.tenant, chain_id=chain.chain_id, detail=chain.detail, now=datetime.now(UTC)
        )
        self._notices.tell(("chain_broken", chain.chain_id), note)


def _broken(engine: Engine, chains: Mapping[bytes, tuple[str, str]]) -> dict[bytes, BrokenChain]:
    """The broken ones among `chains` (key -> tenant, subject); those that cannot be read are found by halving."""
    try:
        with transaction(engine) as conn:
            ledger_entries.read_by_index(conn)
            return ledger_entries.broken_chains(conn, chains)
    except Exception as error:
        if not damaged(error):
            raise
        if len(chains) == 1:
            fault = f"Postgres cannot read the chain: {one_line(error)}"
            return {key: BrokenChain(tenant, subject, None, fault) for key, (tenant, subject) in chains.items()}
    keys = list(chains)
    middle = len(keys) // 2
    halves = ({key: chains[key] for key in half} for half in (keys[:middle], keys[middle:]))
    return {key: chain for half in halves for key, chain in _broken(engine, half).items()}


def _differ(found: BrokenChain, known: BrokenChain) -> bool:
    """Whether a chain that was only broken cannot be read now, or the other way round."""
    return (found.chain_id is None) != (known.chain_id is None)


def _name(chain: BrokenChain) -> str:
    return "unreadable" if chain.chain_id is None else chain.chain_id.hex
