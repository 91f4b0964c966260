"""Takes a move back before the tenant has arrived: it lives where it was, and what was kept meanwhile is recorded first.

What was kept is recorded by the mover itself, from the tenant's queue, while ingest goes on keeping what comes. For the last
of it ingest waits, so that nothing gets ahead: the transaction that ends the freeze holds the lock for which it waits. If the
mover is killed, that lock is gone with it, and the tenant stays frozen: the same command, or the move itself, goes on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from ops.admin.bulk import Act, noted
from ops.admin.moving.cells import Route, alone
from ops.admin.moving.finishing import LEFT
from ops.admin.moving.move_plan import known, withdraw
from ops.errors import OpsError
from ops.runtime.db import Engine, make_engine, transaction
from pipeline.store.admin import queries
from pipeline.store.moving import moves
from pipeline.store.moving.moves import Move
from schemas.message import Message
from workers.amqp import header_tables
from workers.amqp.kept import forwarded, received
from workers.commands.forward import Held, caught_up, connected, make_queue, pass_on, waiting, when_empty
from workers.ingest.writer import Writer


def take_back(route: Route, who: str) -> int:
    """End the move; gives how many messages that were kept are recorded. Raises `OpsError` if the tenant has arrived."""
    with alone(route):
        move = known(route)
        if move.state in LEFT:
            raise OpsError(f"{route.tenant} lives in {move.cell}: move it from there")
        withdraw(route, move)
        about = {"tenant": route.tenant, "epoch": move.epoch, "to": move.cell}
        with noted(route.source.engine, Act(who, "tenant move taken back", about), 1) as tally:
            returned = _returned(route, move) if move.state == "moving" else _forgotten(route, move)
            tally.done = 1
    return returned


def _forgotten(route: Route, move: Move) -> int:
    with transaction(route.source.engine) as here:
        moves.forget(here, move.tenant)
    return 0


def _returned(route: Route, move: Move) -> int:
    header_tables.install()
    amqp_url = route.source.settings.amqp_url
    make_queue(amqp_url, route.tenant)
    engine = _by_mover(route, move)
    writer = Writer(engine, route.source.vault, route.source.blobs, lambda: False, keep=None)
    try:
        writer.load()
        record = partial(_record, writer)
        with connected(amqp_url) as channel:
            done = pass_on(channel, route.tenant, record, caught_up(waiting(amqp_url, route.tenant)))
            with transaction(route.source.engine) as here:
                queries.be_patient(here)
                moves.lock_kept(here, route.tenant)
                done += pass_on(channel, route.tenant, record, when_empty)
                moves.thaw(here, move, datetime.now(UTC))
                moves.forget(here, route.tenant)
        return done
    finally:
        writer.close()
        engine.dispose()


def _record(writer: Writer, held: Sequence[Held]) -> None:
    writer.write([writer.judge(each) for each in map(_message, held)])


def _message(held: Held) -> Message:
    _method, properties, body = held
    return received(forwarded(body, properties)[0])


def _by_mover(route: Route, move: Move) -> Engine:
    """Connections that may append for the tenant though it is frozen."""
    return make_engine(route.source.settings.direct_url, pool_size=2, moving=str(move.id))
