"""Copies a tenant's ledger, piece by piece in the order of its log, while the tenant is live; and compares the copies."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

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


class Upto(NamedTuple):
    """So many leaves of a tenant's newest log, which has that incarnation; 0 if it has none."""

    incarnation: int
    size: int


NOTHING: Final = Upto(0, 0)


def copy_ledger(route: Route, move: Move, show: Show = lambda _size: None, most: int = PIECE) -> int:
    """Copy what the logs have and the copies have not; gives the size that the newest has in both then.

    Every piece is committed by itself, and a killed copy goes on after the last one. Raises `OpsError` when the move was taken
    back.
    """
    while True:
        with snapshot(route.source.engine) as here:
            logs = ledger_copy.logs_of(here, route.tenant)
            size = _copy_next(route, move, here, logs, most) if logs else None
        if size is None:
            return logs[-1].size if logs else 0
        show(size)


def compare(route: Route, since: Upto = NOTHING) -> Upto:
    """Compare both copies: roots of all logs, and all bytes of the newest one's leaves after `since`; gives how far that was.

    Raises `OpsError`, which says what differs. Whatever is compared must not grow meanwhile: the whole of both when the tenant
    is frozen, else only the leaves.
    """
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        ours, theirs = (ledger_copy.logs_of(conn, route.tenant) for conn in (here, there))
        if not ours and not theirs:
            return NOTHING
        if [log.incarnation for log in ours] != [log.incarnation for log in theirs]:
            raise OpsError(f"{route.tenant} has {len(ours)} logs here and {len(theirs)} there, or others than here")
        for one, other in zip(ours, theirs, strict=True):
            if (one.closed and other.size != one.size) or _root(one, other.size, here) != _root(other, other.size, there):
                raise OpsError(f"{_named(one)} differs between the cells at {other.size}: nothing was given over")
        first = since.size if since.incarnation == ours[-1].incarnation else 0
        for span in ledger_copy.pieces(first, theirs[-1].size, COMPARED):
            sums = [ledger_copy.digest(*each, span) for each in ((here, ours[-1].id), (there, theirs[-1].id))]
            if sums[0] != sums[1]:
                raise OpsError(f"the entries at {span.first} to {span.end - 1} differ: {sums[0][:2]} here, {sums[1][:2]} there")
        return Upto(theirs[-1].incarnation, theirs[-1].size)


def compare_frozen(route: Route, since: Upto = NOTHING) -> Upto:
    """Compare, as `compare` does, a tenant that nobody appends to: also that all logs and all chains end alike."""
    upto = compare(route, since)
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        ours, theirs = (ledger_copy.logs_of(conn, route.tenant) for conn in (here, there))
        for log, copy in zip(ours, theirs, strict=True):
            if log._replace(id=0) != copy._replace(id=0):
                raise OpsError(f"{_named(log)} has {log.size} leaves here and {copy.size} there, or another root")
        if moves.pending(here, route.tenant):
            raise OpsError("entries of the tenant have no positions in its log yet")
        one, other = ledger_copy.heads(here, route.tenant), ledger_copy.heads(there, route.tenant)
        if one != other:
            raise OpsError(f"the chains end otherwise: {one[0]} chains here, {other[0]} there")
    return upto


def extends(route: Route) -> bool:
    """Whether each of the source's logs is the beginning of one of the target's, or the source has none any more."""
    with snapshot(route.source.engine) as here, snapshot(route.target.engine) as there:
        theirs = {log.incarnation: log for log in ledger_copy.logs_of(there, route.tenant)}
        return all(
            (copy := theirs.get(log.incarnation)) is not None
            and log.size <= copy.size
            and _root(copy, log.size, there) == _root(log, log.size, here)
            for log in ledger_copy.logs_of(here, route.tenant)
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
    """Size and root of the tenant's newest log in the target cell, as hex digits."""
    with snapshot(route.target.engine) as there:
        log = ledger_copy.log_of(there, route.tenant)
    return (0, "") if log is None else (log.size, read_frontier(log.size, log.frontier).root().hex())


def _copy_next(route: Route, move: Move, here: Connection, logs: Sequence[LogRow], most: int) -> int | None:
    """Copy the next piece; gives the size of its log after it, None if nothing is left."""
    with transaction(route.target.engine) as there:
        coming = moves.hold(there, route.tenant)
        if coming is None or coming.id != move.id or coming.state != "arriving":
            raise OpsError(f"{route.target.name} does not take {route.tenant} any more: the move was taken back, or has ended")
        moves.by_mover(there, move.id)
        log, into = _next_log(route, there, logs)
        span = Span(into.size, min(into.size + most, log.size))
        if span.first >= span.end:
            return None
        copy_blobs(route, ledger_copy.blobs(here, log.id, span))
        former = [each.id for each in logs if each.incarnation < log.incarnation]
        ledger_copy.copy_piece(here, log.id, there, into.id, span, former)
        ledger_copy.erase_listed(there, route.tenant, into.id, span)
        added = ledger_copy.hashes(there, into.id, span)
        grown = extend(read_frontier(into.size, into.frontier), added)
        if grown.size != span.end or not ledger_copy.grow(there, into, grown.size, grown.packed):
            raise OpsError(f"of the entries at {span.first} to {span.end - 1}, only {len(added)} came: verify the ledger here")
    return span.end


def _next_log(route: Route, there: Connection, logs: Sequence[LogRow]) -> tuple[LogRow, LogRow]:
    """The log of which the next piece is, and its copy: of closed ones the first that is not whole there, else the open one."""
    copy = ledger_copy.log_of(there, route.tenant)
    for log in logs:
        if copy is None or copy.incarnation < log.incarnation:
            copy = ledger_copy.make_log(there, route.tenant, log.incarnation, copy)
        if copy.incarnation == log.incarnation:
            if copy.size > log.size:
                more = f"{route.target.name} has more of it than {route.source.name}, of a move that was taken back"
                raise OpsError(f"{_named(log)}: {more}. A database was restored since: move the tenant to another cell")
            if copy.size < log.size or not log.closed:
                return log, copy
    raise OpsError(f"{route.target.name} has logs of {route.tenant} that {route.source.name} has not: verify both")


def _named(log: LogRow) -> str:
    return f"the log r{log.incarnation}" if log.incarnation > 1 else "the log"


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
