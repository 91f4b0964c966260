"""Copies a tenant's ledger, piece by piece in the order of its log, while the tenant is live; and compares the copies."""

from collections.abc import Callable, Iterable
from typing import Final

from ops.admin.moving.cells import Route
from ops.admin.read_session import snapshot
from ops.admin.verifying.verify_ledger import Wanted, verification
from ops.errors import OpsError
from ops.runtime.db import Connection, transaction
from pipeline.errors import BlobLost
from pipeline.ledger.merkle import extend, read_frontier
from pipeline.store.moving import ledger_copy, moves
from pipeline.store.moving.ledger_copy import LogRow, Span
from pipeline.store.moving.moves import Move
from schemas.ledger.fault import Fault

PIECE: Final = 5000  # leaves in one transaction
COMPARED: Final = 100_000  # leaves hashed in one statement

Show = Callable[[int], None]


def copy_ledger(route: Route, move: Move, show: Show = lambda _size: None, most: int = PIECE) -> int:
    """Copy what the log has and the copy has not; gives the size that both have then.

    Every piece is committed by itself, and a killed copy goes on after the last one. Raises `OpsError` when the move was taken
    back.
    """
    while True:
        with snapshot(route.source.engine) as here:
            log = ledger_copy.log_of(here, route.tenant)
            size = _copy_next(route, move, here, log, most) if log is not None else None
        if size is None:
            return 0 if log is None else log.size
        show(size)


def compare(route: Route, since: int = 0) -> int:
    """Compare both copies, all bytes of the leaves from `since` on, roots and heads; gives the size of the log.

    Raises `OpsError`, which says what differs. Whatever is compared must not grow meanwhile: the whole of both when the tenant
    is frozen, else only the leaves.
    """
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        ours, theirs = (ledger_copy.log_of(conn, route.tenant) for conn in (here, there))
        if ours is None and theirs is None:
            return 0
        if ours is None or theirs is None:
            raise OpsError(f"{route.tenant} has a log in one of the cells only")
        if _root(ours, theirs.size, here) != _root(theirs, theirs.size, there):
            raise OpsError(f"the log's root at {theirs.size} differs between the cells: nothing was given over")
        for span in ledger_copy.pieces(since, theirs.size, COMPARED):
            one, other = (ledger_copy.digest(*each, span) for each in ((here, ours.id), (there, theirs.id)))
            if one != other:
                raise OpsError(f"the entries at {span.first} to {span.end - 1} differ: {one[:2]} here, {other[:2]} there")
        return theirs.size


def compare_frozen(route: Route, since: int = 0) -> int:
    """Compare, as `compare` does, a tenant that nobody appends to: also that both logs and all chains end alike."""
    size = compare(route, since)
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        ours, theirs = (ledger_copy.log_of(conn, route.tenant) for conn in (here, there))
        if ours is not None and theirs is not None and (ours.size, ours.frontier) != (theirs.size, theirs.frontier):
            raise OpsError(f"the log has {ours.size} leaves here and {theirs.size} there, or another root")
        if moves.pending(here, route.tenant):
            raise OpsError("entries of the tenant have no positions in its log yet")
        one, other = ledger_copy.heads(here, route.tenant), ledger_copy.heads(there, route.tenant)
        if one != other:
            raise OpsError(f"the chains end otherwise: {one[0]} chains here, {other[0]} there")
    return size


def extends(route: Route) -> bool:
    """Whether the target's log begins with all of the source's; True as well if the source has none any more."""
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        ours, theirs = (ledger_copy.log_of(conn, route.tenant) for conn in (here, there))
        if ours is None:
            return True
        return (
            theirs is not None and ours.size <= theirs.size and _root(theirs, ours.size, there) == _root(ours, ours.size, here)
        )


def verified(route: Route) -> int:
    """Verify the tenant's ledger in the target as any is verified; gives how many entries it has. Raises `OpsError`."""
    faults: list[Fault] = []
    with verification(route.target.settings, faults.append) as found:
        done = found.all_of(Wanted(route.tenant), lambda _done: None)
    own = [fault for fault in faults if fault.tenant in (route.tenant, None)]
    if own:
        raise OpsError(f"the copy does not verify: {own[0]}, and {len(own) - 1} more; nothing was given over or deleted")
    return done.entries


def root_of(route: Route) -> tuple[int, str]:
    """Size and root of the tenant's log in the target cell, as hex digits."""
    with snapshot(route.target.engine) as there:
        log = ledger_copy.log_of(there, route.tenant)
    return (0, "") if log is None else (log.size, read_frontier(log.size, log.frontier).root().hex())


def _copy_next(route: Route, move: Move, here: Connection, log: LogRow, most: int) -> int | None:
    """Copy the next piece; gives the size after it, None if nothing is left."""
    with transaction(route.target.engine) as there:
        coming = moves.hold(there, route.tenant)
        if coming is None or coming.id != move.id or coming.state != "arriving":
            raise OpsError(f"{route.target.name} does not take {route.tenant} any more: the move was taken back, or has ended")
        moves.by_mover(there, move.id)
        into = ledger_copy.log_of(there, route.tenant)
        if into is None:
            ledger_copy.make_log(there, route.tenant, log.incarnation)
            into = ledger_copy.log_of(there, route.tenant)
            assert into is not None
        span = Span(into.size, min(into.size + most, log.size))
        if span.first >= span.end:
            return None
        copy_blobs(route, ledger_copy.blobs(here, log.id, span))
        ledger_copy.copy_piece(here, log.id, there, into.id, span)
        ledger_copy.erase_listed(there, route.tenant, into.id, span)
        added = ledger_copy.hashes(there, into.id, span)
        grown = extend(read_frontier(into.size, into.frontier), added)
        if grown.size != span.end or not ledger_copy.grow(there, into, grown.size, grown.packed):
            raise OpsError(f"of the entries at {span.first} to {span.end - 1}, only {len(added)} came: verify the ledger here")
    return span.end


def copy_blobs(route: Route, references: Iterable[str]) -> None:
    """Copy these bodies, unless both cells have one store."""
    if route.source.settings.blobs == route.target.settings.blobs:
        return
    for reference in references:
        if not route.target.blobs.exists(route.tenant, reference):
            try:
                route.target.blobs.put(route.tenant, route.source.blobs.get(route.tenant, reference))
            except BlobLost as error:
                raise OpsError(f"{error}: restore it in {route.source.settings.blobs}, and run this again") from error


def _root(log: LogRow, size: int, conn: Connection) -> bytes:
    """The root of the first `size` leaves; of a log that is longer, from its entries."""
    if log.size == size:
        return read_frontier(log.size, log.frontier).root()
    frontier = read_frontier(0, b"")
    for span in ledger_copy.pieces(0, size, COMPARED):
        frontier = extend(frontier, ledger_copy.hashes(conn, log.id, span))
    return frontier.root()
