"""The command that shows what retention would erase, and carries it out."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.confirm import ActTerms, confirmed_act
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, Column, counted, moment, progress, show_json, show_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Engine

    from ops.admin.erasure.retention import Ran
    from ops.settings import Settings

_POLICY: tuple[Column, ...] = (
    ("tenant", "tenant"),
    ("source", lambda row: row["source"] or "(all others)"),
    ("kept for", lambda row: f"{row['retention'] / 86_400:g} d"),
    ("erases before", moment("before")),
    ("entries due", "entries"),
    ("MiB", lambda row: f"{row['bytes'] / 2**20:.1f}"),
    ("oldest", moment("oldest")),
)


@click.command()
@click.option("--most", type=click.IntRange(1), help="At most this many entries.  [default: WAXSEAL_RETENTION_MOST]")
@confirmed_act
@JSON
@DATA
def retention(most: int | None, terms: ActTerms, as_json: bool, data: Path) -> None:
    """Show what each retention policy would erase now. With --yes, erase it.

    The eraser does that by itself once an hour. It holds back when the clock may have jumped: this command shows why, and with
    --yes it takes this machine's clock for right, and the eraser goes on. Only content recorded before the date shown is
    erased, by our clock, whatever time an event says. If interrupted, the same command does the rest.

    Example: waxseal retention
    """
    from datetime import UTC, datetime

    from ops.admin.erasure.retention import due, due_policy_view, last_run
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    now, settings = datetime.now(UTC), settings_for(data, "database_url")
    with open_engine(settings) as engine:
        show_list(map(due_policy_view, due(engine, now)), _POLICY, as_json, none="no retention is configured", limited=True)
        last = last_run(engine)
        if last is not None and last.held is not None:
            click.echo(f"nothing is erased: {last.held}. If the clock is right now, add --yes", err=True)
        if terms.yes:
            with progress("erasing", 0) as show:
                ran = _run(engine, settings, now, most or settings.retention_most, terms.who, show)
            _show(ran, as_json)
        else:
            click.echo("nothing was erased: add --yes", err=True)


def _run(engine: "Engine", settings: "Settings", now: "datetime", most: int, who: str, show: "Callable[[int], None]") -> "Ran":
    from ops.admin.erasure.retention import run_retention
    from ops.admin.read_session import snapshot, tenant_keys
    from ops.errors import OpsError

    with snapshot(engine) as conn:
        keys = tenant_keys(conn, settings)
    if keys is None:
        raise OpsError("an erasure is recorded under the tenant's key: set WAXSEAL_KEYS, the keys that the workers have")
    return run_retention(engine, keys, now, most, who=who, show=show)


def _show(ran: "Ran", as_json: bool) -> None:
    from ops.errors import OpsError

    if as_json:
        show_json({"erased": {"entries": ran.erased.entries, "bytes": ran.erased.bytes}, "more": ran.more})
    else:
        more = "; there is more, run it again" if ran.more else ""
        click.echo(f"erased {counted(ran.erased.entries, 'entry', 'entries')}, {ran.erased.bytes / 2**20:.1f} MiB{more}")
    if ran.unsound:
        chains = ", ".join(each.hex for each in ran.unsound[:3])
        number = counted(len(ran.unsound), "chain is", "chains are")
        raise OpsError(f"{number} not sound, and nothing was erased from it ({chains}): `waxseal verify` names the faults")


COMMANDS: tuple[click.Command, ...] = (retention,)
