"""The freeze: from its COMMIT on nothing more is recorded, claimed or pulled for the tenant in the cell that it leaves."""

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final

from ops.admin.moving.cells import Route
from ops.errors import OpsError
from ops.runtime.db import Connection, transaction
from pipeline.errors import ChainBroken
from pipeline.ledger.sequence import sequence
from pipeline.store.moving import moves

APPENDS: Final = 60.0  # seconds for transactions that append just now; Postgres ends one that stands still after ten
CLAIMS: Final = 15.0  # seconds for those that may claim just now; others only read, and need not be waited for
SENDING: Final = 30.0  # seconds for deliveries that are being sent; what takes longer is sent again by the other cell
POSITIONS: Final = 120.0  # seconds until all that was recorded has its position
_LOOK: Final = 0.02


def freeze(route: Route) -> int:
    """Freeze the tenant, and return when nothing of it is under way any more; gives how many deliveries still are being sent.

    Everything that was recorded has its position in the log then. Frozen before: only waits.
    """
    with transaction(route.source.engine) as here:
        moves.freeze(here, route.tenant, datetime.now(UTC))
    if left := _outlived(route, moves.appending, APPENDS):
        raise OpsError(f"{len(left)} transactions have been recording for more than {APPENDS:.0f} s: run this again")
    _outlived(route, moves.claiming, CLAIMS)
    sending = _sending(route)
    _sequence(route)
    return sending


def _outlived(route: Route, look: Callable[[Connection], Collection[str]], seconds: float) -> Collection[str]:
    """Wait for the transactions that there are now; gives those that are still there in the end."""
    deadline = time.monotonic() + seconds
    left: Collection[str] | None = None
    while left is None or (left and time.monotonic() < deadline):
        if left is not None:
            time.sleep(_LOOK)
        with transaction(route.source.engine) as here:
            found = set(look(here))
        left = found if left is None else found & set(left)
    return left


def _sending(route: Route) -> int:
    deadline = time.monotonic() + SENDING
    while True:
        with transaction(route.source.engine) as here:
            count = moves.leased(here, route.tenant)
        if not count or time.monotonic() > deadline:
            return count
        time.sleep(_LOOK)


def _sequence(route: Route) -> None:
    """Give what was recorded its positions: the sequencer does, too, and the one that comes first."""
    deadline = time.monotonic() + POSITIONS
    while True:
        try:
            with transaction(route.source.engine) as here:
                if not moves.pending(here, route.tenant):
                    return
                done = sequence(here, route.tenant)
        except ChainBroken as error:
            raise OpsError(f"{error}: `waxseal verify --tenant {route.tenant}`; --abort takes the move back") from error
        if time.monotonic() > deadline:
            raise OpsError(f"{route.tenant} has entries without positions after {POSITIONS:.0f} s: see `waxseal log status`")
        if done is None or not (done.leaves or done.more):
            time.sleep(_LOOK)
