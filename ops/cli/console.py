"""Commands of the console: the process, and the tokens that open it."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path

import click

from ops.cli.processes import run_process
from ops.cli.terminal.options import DATA


@click.command()
@DATA
def console(data: Path) -> None:
    """Run the console and its API.

    Pages and operations for those whom a token or a login lets in. `waxseal token new` makes a token.

    Example: WAXSEAL_CONSOLE_HOST=0.0.0.0 waxseal console
    """
    from workers.console.worker import run

    run_process(run, data, "database_url", "keys")


COMMANDS: tuple[click.Command, ...] = (console,)
