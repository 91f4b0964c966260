"""Options that every command on a data folder has."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ops.cli.terminal.output import JSON

DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".waxseal"),
    show_default=True,
    help="The data folder.",
)


def reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --json and the data folder; the command gets `as_json`, and `engine` on the folder's database."""

    @wraps(command)
    def read(data: Path, **others: Any) -> Any:
        from ops.admin.read_session import open_engine
        from ops.system.stack_file import settings_for

        with open_engine(settings_for(data, "database_url")) as engine:
            return command(engine=engine, **others)

    return JSON(DATA(read))
