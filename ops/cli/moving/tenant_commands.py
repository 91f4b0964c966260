"""`waxseal tenant`: moves of tenants between cells."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.confirm import ActTerms, single_act
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import counted, progress, show_json

if TYPE_CHECKING:
    from ops.admin.moving.cells import Route
    from ops.admin.moving.move_plan import Plan

TO = click.option(
    "--to",
    "there",
    required=True,
    metavar="CELL",
    type=click.Path(exists=True, path_type=Path),
    help="The other cell: the data folder of its `waxseal up`, or a file of its WAXSEAL_ variables.",
)

_NAMES = {
    "entries": ("entry", "entries"),
    "chains": ("chain", "chains"),
    "sources": ("source", "sources"),
    "mailboxes": ("mailbox", "mailboxes"),
    "endpoints": ("endpoint", "endpoints"),
    "deliveries": ("delivery that is not settled", "deliveries that are not settled"),
    "dead_letters": ("open dead letter", "open dead letters"),
}


@click.group()
def tenant() -> None:
    """Tenants between cells, each a whole system.

    Example: waxseal tenant move acme --to /srv/cell-2
    """


@tenant.command("move")
@click.argument("tenant")
@TO
@click.option("--abort", is_flag=True, help="Take a move back that has not arrived yet.")
@click.option("--finish", is_flag=True, help="Delete what a tenant that has moved left here.")
@click.option("--yes", is_flag=True, help="Do it; without, only show what would be moved or deleted, and what is in the way.")
@single_act
@DATA
def move(tenant: str, there: Path, abort: bool, finish: bool, yes: bool, terms: ActTerms, data: Path) -> int:
    """Take a tenant to another cell, with its ledger, under load.

    The ledger is copied while the tenant is live, verified there, and compared byte by byte. Then the tenant is frozen: what
    comes for it is kept in a queue of its own. The rest is copied, sizes, roots and the ends of all chains are compared, and
    the tenant lives in the other cell; this one refuses it for ever. What was kept, and what comes here later (`waxseal tenant
    forward`), goes to the other cell's inbox in order; settled deliveries, operator events and the audit come after it. Killed
    at any point, the same command goes on. Needs the logins of both databases' owners.

    With --finish, when nobody sends here any more: what is left here is deleted, after the other cell's ledger of the tenant
    was verified.

    Exit code 0: done, or nothing is in the way. 1: something is. 2: it did not end; run it again.

    \b
    Example: waxseal tenant move acme --to /srv/cell-2
             waxseal tenant move acme --to /srv/cell-2 --yes
             waxseal tenant move acme --to /srv/cell-2 --finish --yes
    """  # noqa: D301 - \b is click's own mark
    from ops.admin.moving.cells import opened
    from ops.admin.moving.move_plan import plan
    from ops.runtime import log
    from ops.system.stack_file import settings_for
    from workers.commands import finish_move, move_tenant
    from workers.commands.take_back import take_back

    if abort and finish:
        raise click.UsageError("--abort ends a move that has not arrived, --finish one that has")
    say, settings = _say(as_json=terms.as_json), settings_for(data)
    log.configure(settings.log, "error", "mover")  # the operator need not see the connections' steps
    with opened(tenant, settings, there) as route:
        if not yes:
            return _show_left(route, as_json=terms.as_json) if finish else _show(plan(route), as_json=terms.as_json)
        if finish:
            with progress("deleting", finish_move.left(route).sizes["chains"]) as show:
                deleted = finish_move.finish(route, terms.who, say, show)
            say(f"{tenant} is deleted here: {deleted} chains and other rows; it may come back")
            return 0
        if abort:
            returned = take_back(route, terms.who)
            say(f"{tenant} lives where it was; {counted(returned, 'message', 'messages')} that were kept are recorded")
            return 0
        with progress("copying", plan(route).sizes["entries"]) as show:
            done = move_tenant.move(route, terms.who, say, show)
    if terms.as_json:
        show_json(asdict(done))
    else:
        click.echo(f"{tenant} has moved: {counted(done.size, 'entry', 'entries')}, root {done.root}")
    return 0


@tenant.command("forward")
@click.argument("tenant")
@TO
@click.option("--once", is_flag=True, help="End when what is kept now is forwarded.")
@DATA
def forward(tenant: str, there: Path, once: bool, data: Path) -> None:
    """Forward what still comes for a tenant that has moved.

    Runs in the cell that it left, until it is stopped: messages that senders still send here go to the other cell's inbox, in
    order and without loss. Of two of these processes one waits. Stopped, or without it, they are kept.

    Example: waxseal tenant forward acme --to /srv/cell-2 --once
    """
    from ops.admin.moving.cells import opened
    from ops.runtime import log
    from ops.system.stack_file import settings_for
    from workers.commands import move_tenant

    settings = settings_for(data)
    log.configure(settings.log, settings.log_level, "forward")
    with opened(tenant, settings, there) as route:
        done = move_tenant.forward_kept(route, once=once)
    click.echo(f"forwarded {counted(done, 'message', 'messages')}")


def _say(*, as_json: bool) -> Callable[[str], None]:
    def say(line: str) -> None:
        click.echo(line, err=as_json)

    return say


def _show_left(route: "Route", *, as_json: bool) -> int:
    from workers.commands import finish_move

    found = finish_move.left(route)
    if as_json:
        state = None if found.move is None else found.move.state
        show_json({"state": state, "sizes": dict(found.sizes), "in_the_way": list(found.hindrances)})
        return int(bool(found.hindrances))
    click.echo(", ".join(counted(found.sizes[name], *_NAMES[name]) for name in ("entries", "chains")))
    for each in found.hindrances:
        click.echo(f"in the way: {each}")
    if not found.hindrances:
        click.echo(f"The other cell's ledger of {route.tenant} will be verified. Add --yes to delete what is here.")
    return int(bool(found.hindrances))


def _show(found: "Plan", *, as_json: bool) -> int:
    told: dict[str, Any] = {
        "state": found.move.state if found.move else None,
        "sizes": dict(found.sizes),
        "copied": found.copied,
        "in_the_way": list(found.hindrances),
    }
    if as_json:
        show_json(told)
        return int(bool(found.hindrances))
    click.echo(", ".join(counted(found.sizes[name], *words) for name, words in _NAMES.items()))
    if found.move is not None:
        click.echo(f"{found.move.state} since {found.move.began_at:%Y-%m-%d %H:%M}, {found.copied} entries copied")
    for each in found.hindrances:
        click.echo(f"in the way: {each}")
    if not found.hindrances:
        click.echo("Nothing is in the way. Add --yes to move it.")
    return int(bool(found.hindrances))


COMMANDS: tuple[click.Command, ...] = (tenant,)
