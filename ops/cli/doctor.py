"""The command that checks the set-up."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, printable, show_json

if TYPE_CHECKING:
    from ops.admin.doctor.finding import Finding


@click.command()
@click.option(
    "--rabbitmqctl",
    metavar="COMMAND",
    help="Runs rabbitmqctl on a node of the broker, as `sudo rabbitmqctl`: to check the cluster and its queues' members too.",
)
@JSON
@DATA
def doctor(rabbitmqctl: str | None, as_json: bool, data: Path) -> int:
    """Check the set-up, and say what to mend.

    Checks settings, both servers with their versions, limits and durability, this login's rights, the ledger's protections,
    clocks, queues, processes, ports, disks, the blob store and DNS. Changes nothing. The exit code is 1 if anything is wrong;
    notes are only worth knowing.

    Example: waxseal doctor
    """
    from ops.admin.doctor.finding import finding_view, is_wrong

    found = []
    for each in _findings(data, rabbitmqctl):
        found.append(each)
        if as_json:
            show_json(finding_view(each))
            continue
        click.echo(f"{each.state.upper() if each.state == 'wrong' else each.state:<7}{each.check:<22}{printable(each.found)}")
        if each.mend:
            click.echo(f"{'':<29}mend: {printable(each.mend)}")
    return 1 if is_wrong(found) else 0


def _findings(data: Path, rabbitmqctl: str | None) -> "Iterator[Finding]":
    from ops.admin.doctor.diagnosis import diagnose
    from ops.admin.doctor.finding import wrong
    from ops.errors import OpsError
    from ops.system.stack_file import settings_for
    from workers.commands.inspect_broker import inspect_broker

    try:
        settings = settings_for(data)
    except OpsError as error:
        yield wrong("settings", str(error), "`waxseal settings` explains each; nothing else is checked before")
        return
    yield from diagnose(data, settings, inspect_broker, rabbitmqctl)


COMMANDS: tuple[click.Command, ...] = (doctor,)
