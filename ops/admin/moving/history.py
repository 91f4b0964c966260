"""Brings what was before a tenant moved, after it has arrived: its operators and auditors look there for it from then on."""

from typing import Final

from ops.admin.moving.cells import Route
from ops.admin.moving.move_plan import known
from ops.admin.read_session import snapshot
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.moving import history, moves

PIECE: Final = 5000  # rows in one transaction


def bring_history(route: Route, most: int = PIECE) -> int:
    """Copy settled deliveries with their attempts, closed dead letters, operator events and acts; gives how many came now.

    Each piece is committed by itself, and a killed copy goes on after the last one. Raises `OpsError` unless the tenant lives
    in the target by this move.
    """
    move, rows = known(route), 0
    while True:
        with snapshot(route.source.engine) as here, transaction(route.target.engine) as there:
            coming = moves.hold(there, route.tenant)
            if coming is None or coming.id != move.id or coming.state != "arrived":
                raise OpsError(f"{route.tenant} does not live in {route.target.name} by this move: its history stays here")
            moves.by_mover(there, move.id)
            if history.reached(there, route.tenant, move.id).whole:
                return rows
            _reached, came = history.bring_next(here, there, route.tenant, route.source.name, move.id, most)
        rows += came
