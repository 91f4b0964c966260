"""What a move would take along, and what is in its way: asked before anything is done, and again before each run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from ops.admin.moving.cells import Route
from ops.errors import OpsError, UnknownTenant
from ops.runtime.db import Connection, transaction
from pipeline.store.admin import schema_version
from pipeline.store.config import configure
from pipeline.store.moving import arrival, ledger_copy, moves
from pipeline.store.moving.moves import Move

ON_THE_WAY: Final = ("copying", "moving")
MOST_WAITING: Final = 100_000  # entries without positions: the freeze waits for all of them, some seconds for so many


@dataclass(frozen=True, slots=True)
class Plan:
    """How much there is to move, by what it is; what is in the way; and the move under way, if there is one."""

    sizes: Mapping[str, int]
    copied: int  # entries that the target has already
    hindrances: tuple[str, ...]
    move: Move | None


def plan(route: Route) -> Plan:
    """What a move would do now. Changes nothing."""
    with transaction(route.source.engine) as here, transaction(route.target.engine) as there:
        move, coming = moves.find(here, route.tenant), moves.find(there, route.tenant)
        if arrival.tenant_row(here, route.tenant) is None:
            raise UnknownTenant(f"there is no tenant {route.tenant!r} in {route.source.name}")
        sizes = ledger_copy.sizes(here, route.tenant)
        log = ledger_copy.log_of(there, route.tenant)
        found = [*_of_cells(route, here, there), *_of_moves(route, move, coming, there)]
        if move is None or move.state == "copying":
            found += _of_tenant(route, sizes)
            if coming is not None and coming.state == "arriving" and _has_configuration(route, there):
                own = f"{route.target.name} has sources or endpoints of {route.tenant} already"
                found.append(f"{own}: they come with the tenant, and not by `waxseal apply`")
    return Plan(sizes, 0 if log is None else log.size, tuple(found), move if move and move.state != "arrived" else None)


def begin(route: Route) -> Move:
    """Note the move in both cells, first in the one that the tenant comes to; gives it, also one that was begun before.

    From then on nobody but the mover appends for the tenant there, and it is not sealed there.
    """
    found = plan(route)
    if found.hindrances:
        raise OpsError("; ".join(found.hindrances))
    if found.move is not None:
        return found.move
    id_, now = uuid4(), datetime.now(UTC)
    with transaction(route.source.engine) as here:
        before, row = moves.find(here, route.tenant), arrival.tenant_row(here, route.tenant)
    assert row is not None
    epoch = 1 if before is None else before.epoch + 1
    with transaction(route.target.engine) as there:
        coming = moves.hold(there, route.tenant)
        if coming is not None:  # of a move that was taken back: what it copied stays, and this one goes on from there
            epoch = max(epoch, coming.epoch + 1)
        moves.put(there, route.tenant, id_, epoch, "arriving", route.source.name, now)
        if arrival.tenant_row(there, route.tenant) is None:
            arrival.put_tenant(there, route.tenant, row, route.reseal)
    with transaction(route.source.engine) as here:
        moves.put(here, route.tenant, id_, epoch, "copying", route.target.name, now)
    return known(route)


def known(route: Route) -> Move:
    """The move as the source knows it. Raises `OpsError` if there is none."""
    with transaction(route.source.engine) as here:
        move = moves.find(here, route.tenant)
    if move is None or move.state == "arrived":
        raise OpsError(f"{route.tenant} is not on its way from {route.source.name}")
    return move


def _of_cells(route: Route, here: Connection, there: Connection) -> Iterator[str]:
    if route.source.name == route.target.name:
        yield f"both cells are {route.source.name}"
    one, other = (", ".join(schema_version.found(conn).versions or ["none"]) for conn in (here, there))
    if one != other:
        yield f"the schemas differ ({one} here, {other} there): upgrade both cells to one version"
    origins = route.source.settings.log_origin, route.target.settings.log_origin
    if origins[0] != origins[1]:
        yield f"WAXSEAL_LOG_ORIGIN is {origins[0]} here and {origins[1]} there: the log keeps its name, so both need the same"


def _of_moves(route: Route, move: Move | None, coming: Move | None, there: Connection) -> Iterator[str]:
    if move is not None and move.state == "arriving":
        yield f"{route.tenant} is still coming here from {move.cell}"
    if move is not None and move.state == "finishing":
        yield f"what {route.tenant} left in {route.source.name} is being deleted: go on with --finish"
    if move is not None and move.state in (*ON_THE_WAY, "moved", "finishing"):
        # A cell is known by the move: its address may be another one after a server was replaced.
        if coming is None or coming.id != move.id or coming.state not in ("arriving", "arrived"):
            if move.cell != route.target.name:
                yield f"{route.tenant} is {move.state}, to {move.cell}: go on with that, or --abort it"
            else:
                yield f"{route.target.name} does not know of this move: --abort it, and begin anew"
        return
    if coming is not None and coming.state in (*ON_THE_WAY, "moved", "finishing", "arrived"):
        before = f"{route.target.name} has had the tenant before (it is {coming.state} there)"
        yield f"{before}: `waxseal tenant move --finish` deletes its copy"
    elif coming is not None and coming.cell != route.source.name:
        yield f"{route.tenant} is coming to {route.target.name} from {coming.cell}"
    elif coming is None and arrival.tenant_row(there, route.tenant) is not None:
        yield f"{route.target.name} has a tenant {route.tenant} of its own"


def _of_tenant(route: Route, sizes: Mapping[str, int]) -> Iterator[str]:
    if sizes["broken"]:
        yield f"{sizes['broken']} chains are set aside as broken: `waxseal verify --tenant {route.tenant}`, and mend them"
    if sizes["jobs"]:
        yield f"{sizes['jobs']} jobs of the console are not done: wait for them, or cancel them"
    if sizes["waiting"] > MOST_WAITING:
        yield f"{sizes['waiting']} entries have no positions in the log yet: wait for the sequencer, see `waxseal log status`"


def _has_configuration(route: Route, there: Connection) -> bool:
    sizes = ledger_copy.sizes(there, route.tenant)
    return bool(sizes["sources"] or sizes["endpoints"])


def withdraw(route: Route, move: Move) -> None:
    """Make a mover that still runs powerless, in the cell to which the tenant was to come. Raises `OpsError` if it has come.

    What was copied stays there, refused to everybody, and a later move goes on from it; a cell that got nothing forgets it all.
    """
    with transaction(route.target.engine) as there:
        coming = moves.hold(there, route.tenant)
        if coming is None or (coming.id != move.id and coming.state == "arriving"):
            return
        if coming.state != "arriving":
            raise OpsError(f"{route.tenant} lives in {route.target.name} already: run `waxseal tenant move` without --abort")
        if ledger_copy.log_of(there, route.tenant) is None:
            moves.forget(there, route.tenant)
            configure.delete_tenant(there, route.tenant)
        else:
            moves.put(there, route.tenant, uuid4(), coming.epoch, "arriving", route.source.name, datetime.now(UTC))
