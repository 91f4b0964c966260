"""The sequencer: gives committed entries their positions in their tenant's log, in one transaction for each tenant in turn.

Any number of these processes may run. Each transaction holds its tenant's lock, so at most one of them is at work on a tenant,
and whichever comes next goes on where the last one committed: there is nothing to hand over. If a process dies, its transaction
is undone and everything that it took is pending again; if it stands still in one, Postgres ends that after three seconds.

It asks Postgres, up to four times a second, rather than being notified: a notification would make every COMMIT that sends one
wait for the one before.
"""

import random
import time
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import Engine, passes, transaction
from ops.settings import Settings
from ops.telemetry import ledger_table
from pipeline.ledger.sequence import MOST, Incomplete, Sequenced, incomplete, sequence
from pipeline.store.log import pending
from workers.process import Process
from workers.rounds import Rounds
from workers.sequencer.floors import Floors

POLL: Final = 0.25  # seconds between two looks when nothing was left over
LOADED: Final = 1.0  # the same after a turn that gave `MANY` positions: fewer, larger transactions cost less for each of them
MANY: Final = 250
SURVEY: Final = 1.0  # seconds between two looks for new tenants
SHARE: Final = 0.1  # of the time for looks at most, when there are many tenants
LONGEST: Final = 2.0  # seconds between two looks: one that waited for a Postgres that stood still tells nothing of the next
ASIDE: Final = 60.0  # seconds until what could not be sequenced is tried again

_log = structlog.get_logger()


class Sequencer:
    """Sequences all tenants, a bounded piece of each in turn, so that a long backlog of one does not hold up the others."""

    def __init__(self, engine: Engine, most: int = MOST) -> None:
        """`most`: entries in one transaction."""
        self._engine = engine
        self._most = most
        self._floors = Floors()
        self._surveyed = float("-inf")
        self._leaves = 0  # given positions in this turn
        self._aside: dict[tuple[str, str], float] = {}  # tenant, and chain or "" for all of it -> until when (monotonic)

    def turn(self) -> float:
        """Sequence a piece of every tenant that has something pending; give the seconds until the next turn."""
        began = time.monotonic()
        waiting = self._waiting(began)
        cost = time.monotonic() - began
        settled = self._floors.settled
        random.shuffle(waiting)  # several processes begin with different tenants
        self._leaves = 0
        left = [tenant for tenant in waiting if self._tenant(tenant, settled)]
        rest = POLL if self._leaves < MANY else LOADED
        return 0.0 if left else min(max(rest, cost / SHARE), LONGEST)

    def forget(self) -> None:
        """Begin anew: after a restore of the database, ids that were gone may be back."""
        self._floors = Floors()
        self._surveyed = float("-inf")

    def _waiting(self, now: float) -> list[str]:
        self._aside = {what: until for what, until in self._aside.items() if until > now}
        with transaction(self._engine) as conn:
            if now - self._surveyed >= SURVEY:
                self._floors.know(pending.tenants(conn))
                self._floors.look(pending.writers(conn, self._floors.settled))
                self._surveyed = now
            found = pending.waiting(conn, self._floors.all)
        for tenant in self._floors.all.keys() - set(found):
            self._floors.drained(tenant, self._floors.settled)
        ledger_table.LOG_ASIDE.set(len(self._aside))
        return [tenant for tenant in found if (tenant, "") not in self._aside]

    def _tenant(self, tenant: str, settled: int) -> bool:
        """Sequence a piece of a tenant; whether there is more. `settled`: the floors' before its transaction."""
        began = time.monotonic()
        aside = [chain for each, chain in self._aside if each == tenant]
        try:
            got = self._sequenced(tenant, aside)
        except Incomplete as error:
            self._set_aside(tenant, self._lacking(tenant, aside) or [""], error)
            return True
        except Exception as error:
            if passes(error):
                raise
            self._set_aside(tenant, [""], error)  # a damaged page, say: the other tenants are not to wait for its repair
            return False
        if got is None:
            return False
        if got.leaves:
            self._leaves += got.leaves
            ledger_table.LOG_LEAVES.inc(got.leaves)
            ledger_table.LOG_SEQUENCE_SECONDS.observe(time.monotonic() - began)
            _log.debug("sequenced", tenant=tenant, leaves=got.leaves, size=got.size)
        if not got.more and not aside:
            self._floors.drained(tenant, settled)
        return got.more

    def _sequenced(self, tenant: str, aside: list[str]) -> Sequenced | None:
        floor = self._floors.all.get(tenant, 0)
        with transaction(self._engine) as conn:
            return sequence(conn, tenant, floor=floor, aside=aside, most=self._most)

    def _lacking(self, tenant: str, aside: list[str]) -> list[str]:
        with transaction(self._engine) as conn:
            return incomplete(conn, tenant, aside=aside, most=self._most)

    def _set_aside(self, tenant: str, chains: list[str], error: Exception) -> None:
        until = time.monotonic() + ASIDE
        self._aside.update({(tenant, chain): until for chain in chains})
        named = [chain for chain in chains if chain]
        _log.error("not_sequenced", tenant=tenant, chains=named[:10], error=one_line(error), again_in=ASIDE)


def run(settings: Settings) -> int:
    """Run one sequencer until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "sequencer", "database_url") as process:
        sequencer = Sequencer(process.engine(1))
        rounds = Rounds(process.stop, sequencer.turn, sequencer.forget)
        beat = process.serve({"database": process.database(lambda: rounds.trouble)})
        rounds.run(beat)
    return process.status
