"""What the cell that a tenant has left still has of it, and what is in the way of deleting that; and the deletion, in pieces.

| durable | killed after it |
|---|---|
| the move is `finishing`: the other cell's copy was verified | the next run deletes |
| the log is deleted; so are some chains, each whole with its deliveries | the next run deletes the others |
| all is deleted, and the move is forgotten | the tenant may come back |
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ops.admin.bulk import Act, Tally
from ops.admin.moving.cells import Route
from ops.admin.moving.copying import extends
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.moving import ledger_copy, moves, removal
from pipeline.store.moving.moves import Move

PIECE: Final = 5000  # entries in one transaction; a longer chain goes whole
LEFT: Final = ("moved", "finishing")

Show = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Remains:
    """How much there is to delete, by what it is; what is in the way; and the move, if the tenant has left."""

    sizes: Mapping[str, int]
    hindrances: tuple[str, ...]
    move: Move | None


def remains(route: Route, kept: int) -> Remains:
    """What a deletion would do now, with `kept` messages in the tenant's queue. Changes nothing."""
    with transaction(route.source.engine) as here, transaction(route.target.engine) as there:
        move, coming = moves.find(here, route.tenant), moves.find(there, route.tenant)
        sizes = ledger_copy.sizes(here, route.tenant)
    found = tuple(_hindrances(route, move, coming, kept))
    return Remains(sizes, found, move if move is not None and move.state in LEFT else None)


def _hindrances(route: Route, move: Move | None, coming: Move | None, kept: int) -> Iterator[str]:
    if move is None or move.state not in LEFT:
        yield f"{route.tenant} has not moved from {route.source.name}: there is nothing to delete"
    elif coming is None or coming.id != move.id or coming.state != "arrived":
        if move.cell != route.target.name:
            yield f"{route.tenant} has moved to {move.cell}"
        else:
            yield f"{route.tenant} does not live in {route.target.name} by this move"
    else:
        if kept:
            yield f"{kept} messages are kept here: `waxseal tenant forward {route.tenant} --to … --once`"
        if move.state == "moved" and not extends(route):
            yield f"the log in {route.target.name} is not that of this cell with more: verify both"


def begin_to_finish(route: Route, move: Move) -> None:
    """Note that the copy is deleted from now on. Call it when the other cell's was verified."""
    if move.state == "moved":
        with transaction(route.source.engine) as here:
            if not moves.end(here, move, "finishing", datetime.now(UTC)):
                raise OpsError(f"the move of {route.tenant} changed meanwhile: run this again")


def delete_ledger(route: Route, move: Move, tally: Tally, show: Show, most: int = PIECE) -> None:
    """Delete the log, and then the chains with all that belongs to them, and the rest that may be much, in pieces.

    Bodies in the blob store are left to the eraser; those in a store that both cells have are not touched.
    """
    blobs = route.source.settings.blobs != route.target.settings.blobs
    with transaction(route.source.engine) as here:
        removal.as_finishing(here, move.id)
        removal.remove_log(here, route.tenant)
    for remove in (removal.remove_chains, removal.remove_rest):
        removed = 1
        while removed:
            with transaction(route.source.engine) as here:
                removal.as_finishing(here, move.id)
                removed = remove(here, route.tenant, most, blobs=blobs)
            tally.done += removed
            show(tally.done)


def act(route: Route, who: str, move: Move) -> Act:
    """The deletion, as the audit has it."""
    about = {"tenant": route.tenant, "epoch": move.epoch, "from": route.source.name, "to": route.target.name}
    return Act(who, "tenant finish", about)
