"""Ends a move: the cell that the tenant has left deletes what it still has of it, and forgets that it was there."""

from collections.abc import Callable

from ops.admin.bulk import noted
from ops.admin.moving.cells import Route, alone
from ops.admin.moving.copying import verified
from ops.admin.moving.finishing import Remains, act, begin_to_finish, delete_ledger, remains
from ops.admin.moving.history import bring_history
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.admin import queries
from pipeline.store.moving import moves, removal
from workers.amqp.kept import kept_queue
from workers.commands.forward import connected, waiting


def left(route: Route) -> Remains:
    """What there is to delete, and what is in the way of that."""
    return remains(route, waiting(route.source.settings.amqp_url, route.tenant))


def finish(route: Route, who: str, say: Callable[[str], None], show: Callable[[int], None]) -> int:
    """Delete the tenant's copy here; gives how many chains, dead letters and items of mailboxes there were.

    First what was settled before has come to the other cell, and that cell's ledger of the tenant was verified. Killed, the
    same call goes on. Raises `OpsError` if something is in the way.
    """
    with alone(route):
        found = left(route)
        if found.hindrances or found.move is None:
            raise OpsError("; ".join(found.hindrances))
        if found.move.state == "moved":
            bring_history(route)
            say(f"verified {verified(route)} entries in {route.target.name}: what is here is deleted now")
            begin_to_finish(route, found.move)
        with noted(route.source.engine, act(route, who, found.move), found.sizes["chains"]) as tally:
            delete_ledger(route, found.move, tally, show)
            _forget(route)
        with connected(route.source.settings.amqp_url) as channel:
            channel.queue_delete(kept_queue(route.tenant))  # it was empty, and nobody keeps anything there any more
    return tally.done


def _forget(route: Route) -> None:
    """Delete the tenant itself, unless something was kept for it meanwhile: while this looks, nothing can be."""
    with transaction(route.source.engine) as here:
        queries.be_patient(here)
        moves.lock_kept(here, route.tenant)
        if kept := waiting(route.source.settings.amqp_url, route.tenant):
            raise OpsError(f"{kept} messages came meanwhile and are kept: forward them, and run this again")
        removal.remove_tenant(here, route.tenant)
        moves.forget(here, route.tenant)
