"""`waxseal log`: keys, standing, a new incarnation, and a server of the files."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.confirm import ActTerms, confirmed_act
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, duration, printable, show_json, show_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ops.admin.log.new_incarnation import Successor


@click.group()
def log() -> None:
    """The tenants' logs: signed, published, anchored.

    Each tenant's entries have positions in a log (an RFC 6962 tree). Whoever keeps one of its checkpoints can tell later that
    nothing before it was changed, left out or cut off. The page log.md says how it works and what to do after a restore.

    Example: waxseal log status
    """


@log.command("key")
@click.argument("tenant")
@click.option("--new", is_flag=True, help="Add a key; it signs beside the others from the sealer's next turn on.")
@click.option("--retire", type=int, metavar="ID", help="Let this key sign no more. What it signed stays valid.")
@JSON
@confirmed_act
@DATA
def key(tenant: str, new: bool, retire: int | None, as_json: bool, terms: ActTerms, data: Path) -> None:
    """Show the keys that sign a tenant's log.

    Each with its verifier key (vkey), which you give to whoever verifies, and which is not secret. The sealer makes the first
    one. To replace a key: --new, give out the new vkey, and --retire the old one once everybody has it; until then both sign.
    --new and --retire need the login of the database's owner.

    Example: waxseal log key acme
    """
    from ops.admin.log import signing_keys
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    if new and retire is not None:
        raise click.UsageError("--new and --retire are two steps", click.get_current_context())
    settings = settings_for(data, "database_url", "log_origin", *(["keys"] if new else []))
    with open_engine(settings) as engine:
        if new:
            rows = [signing_keys.add_key(engine, settings, tenant, terms.who)]
        elif retire is not None:
            terms.confirm(f"retire key {retire} of {tenant}")
            rows = [signing_keys.retire_key(engine, settings, tenant, retire, terms.who)]
        else:
            rows = signing_keys.list_keys(engine, settings, tenant)
    columns = [("id", "id"), ("state", "state"), ("vkey", "vkey")]
    show_list(rows, columns, as_json, none="No key yet: the sealer makes the first one.", limited=True)


@log.command("status")
@click.option("--tenant", help="Only this tenant.")
@JSON
@DATA
def status(tenant: str | None, as_json: bool, data: Path) -> int:
    """Show how the tenants' logs stand.

    The leaves of each log, and how many of them are signed, published and anchored where. What is published is read and its
    signature checked; anchors are shown by their receipts. Exit code 1 when a log is refused: runbook.md, WaxsealLogRefused.

    Example: waxseal log status --tenant acme
    """
    from ops.admin.log.standing import standing
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    settings = settings_for(data, "database_url", "log_origin")
    with open_engine(settings) as engine:
        logs = standing(engine, settings, tenant)
    for each in logs:
        if as_json:
            show_json(each)
        else:
            for label, said in _lines(each):
                click.echo(f"{label:<13}{printable(said)}")
            click.echo()
    if not logs and not as_json:
        click.echo("No log yet: the sequencer makes one when a tenant's first entry is recorded.", err=True)
    return int(any(each["refused"] for each in logs))


@log.command("new-origin")
@click.argument("tenant")
@confirmed_act
@DATA
def new_origin(tenant: str, terms: ActTerms, data: Path) -> None:
    """Begin a new log of a tenant, after a restore.

    A database that was restored from a backup lacks entries that its log has published, so the sealer refuses to sign. This
    closes that log, whose files stay as they are, and begins the next one: its origin ends in /r2, /r3 …, its first entry names
    the old origin, size and root, and all entries get new positions. Without --yes it only says what it would do. Needs the
    login of the database's owner. Tell those who keep checkpoints: the new log has a new key (`waxseal log key`).

    Example: waxseal log new-origin acme --yes
    """
    from ops.admin.log import new_incarnation
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    settings = settings_for(data, "database_url", "log_origin", "log_files", "keys")
    with open_engine(settings) as engine:
        planned = new_incarnation.plan(engine, settings, tenant)
        click.echo(_planned(planned))
        if not terms.yes:
            click.echo("Nothing was done. Add --yes to do it.", err=True)
            return
        chains = new_incarnation.start(engine, settings, planned, terms.who)
    click.echo(f"{planned.origin} has begun; {counted(chains, 'chain waits', 'chains wait')} for positions in it.")


@log.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8425, show_default=True, help="Its port; 0: any free one.")
@DATA
def serve(host: str, port: int, data: Path) -> int:
    """Serve the published logs over HTTP.

    The files at WAXSEAL_LOG_FILES, if that is a folder, in the layout of C2SP tlog-tiles: /TENANT/checkpoint, /TENANT/tile/….
    Needs no database, and has no TLS: put a web server in front of it, or let that serve the folder. A bucket serves its own.

    Example: waxseal log serve --host 0.0.0.0
    """
    from ops.system.stack_file import settings_for
    from workers.sealer.log_server import run

    return run(settings_for(data, "log_files"), host, port)


def _planned(planned: "Successor") -> str:
    former = planned.former
    after = counted(former.size - planned.held, "leaf", "leaves")
    missing = (
        "all of it is in this database"
        if planned.held == former.size
        else f"this database knows it up to size {planned.held}: of the {after} after that, some or all are not in it"
    )
    held = counted(planned.entries, "entry", "entries")
    return (
        f"{former.origin} was published up to size {former.size}; {missing}.\n"
        f"{planned.origin} begins with an entry that names it, and then holds {held}."
    )


def _lines(each: "Mapping[str, Any]") -> "Iterator[tuple[str, str]]":
    pending = f", {each['pending']} wait for a position" if each["pending"] else ""
    closed = ", closed" if each["state"] == "closed" else ""
    yield each["tenant"], f"{each['origin']}: {counted(each['size'], 'leaf', 'leaves')}{pending}{closed}"
    if each["refused"]:
        yield "  REFUSED", f"{each['refused']['kind']}: {each['refused']['detail']}"
    sealed = each["sealed"]
    yield "  sealed", "nothing yet" if sealed is None else f"{sealed['size']} at {sealed['at'][:19].replace('T', ' ')}"
    published = each["published"]
    yield "  published", published["error"] or f"{published['size']} at {published['place']}"
    for anchor in each["anchored"]:
        where = f"{anchor['kind']} {anchor['place']}"
        taken = f"{anchor['size']}, {duration(anchor['age'])} ago" if anchor["size"] else "MISSING: nothing yet"
        yield "  anchored", f"{where}: {taken}"
    for signing in each["keys"]:
        yield f"  key {signing['id']}", f"{signing['state']}  {signing['vkey']}"


COMMANDS: tuple[click.Command, ...] = (log,)
