"""Options that every command on a data folder has."""

from pathlib import Path

import click

DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".waxseal"),
    show_default=True,
    help="The data folder.",
)
