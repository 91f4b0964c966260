"""The flip: one transaction makes the tenant live in the cell that it comes to; then the other cell is told that it has gone.

Between the two nobody records for it: the cell that it leaves has been frozen, and stays so until it is told, however often the
mover is killed.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from ops.admin.bulk import Act, noted
from ops.admin.moving.cells import Route
from ops.admin.moving.copying import copy_blobs
from ops.admin.moving.move_plan import known
from ops.admin.read_session import snapshot
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.deliveries import notify
from pipeline.store.moving import arrival, moves


def arrive(route: Route, who: str) -> Mapping[str, int]:
    """Bring in everything but the ledger, which is there, and let the tenant live; gives how many rows of each table came.

    Nothing, if that was done before. Raises `OpsError` if the move was taken back.
    """
    move = known(route)
    counts: Mapping[str, int] = {}
    with noted(route.target.engine, _act(route, who, "arrive", move.epoch), 1) as tally:
        with snapshot(route.source.engine) as here, transaction(route.target.engine) as there:
            coming = moves.hold(there, route.tenant)
            if coming is None or coming.id != move.id:
                raise OpsError(f"{route.target.name} does not take {route.tenant} any more: the move was taken back")
            if coming.state == "arriving":
                moves.by_mover(there, move.id)
                copy_blobs(route, arrival.letter_blobs(here, route.tenant))
                saved = {name: json.dumps(move.saved[name]) for name in ("health", "mailboxes")}
                counts = arrival.bring(here, there, route.tenant, saved, route.reseal)
                if arrival.work(here, route.tenant) != arrival.work(there, route.tenant):
                    raise OpsError("not all deliveries that are due have come: run this again")
                moves.end(there, coming, "arrived", datetime.now(UTC))
                notify.send(there, moves.endpoints(there, route.tenant))
        tally.done = 1
    return counts


def leave(route: Route, who: str) -> None:
    """Tell the cell that the tenant has left that it has gone: what the other cell has is not tried here any more."""
    move = known(route)
    if move.state == "moved":
        return
    with noted(route.source.engine, _act(route, who, "leave", move.epoch), 1) as tally:
        with transaction(route.source.engine) as here:
            now = datetime.now(UTC)
            if not moves.end(here, move, "moved", now):
                raise OpsError(f"the move of {route.tenant} changed meanwhile: run this again")
            moves.give_up(here, route.tenant, now)
        tally.done = 1


def has_arrived(route: Route) -> bool:
    """Whether the tenant lives in the target cell already, by this move."""
    move = known(route)
    with transaction(route.target.engine) as there:
        coming = moves.find(there, route.tenant)
    return coming is not None and coming.id == move.id and coming.state == "arrived"


def _act(route: Route, who: str, what: str, epoch: int) -> Act:
    cells = {"from": route.source.name, "to": route.target.name}
    return Act(who, f"tenant {what}", {"tenant": route.tenant, "epoch": epoch, **cells})
