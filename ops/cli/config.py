"""The command that applies a configuration file."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path

import click

from ops.cli.terminal.confirm import ActTerms, confirmed_act
from ops.cli.terminal.options import DATA
from ops.config.summary import show


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove what the file does not name. Tenants with entries always stay.")
@click.option("--enable", is_flag=True, help="Enable endpoints again that answered 410 Gone.")
@confirmed_act
@DATA
def apply(file: Path, dry_run: bool, prune: bool, enable: bool, terms: ActTerms, data: Path) -> None:
    """Configure tenants, sources, endpoints and mailboxes as FILE says; - is standard input.

    All or nothing. What is already as FILE says is not touched. Running processes follow within a second. Errors name their
    lines. A secret is a literal, env:NAME or file:PATH. With --prune, undelivered events of removed endpoints are counted,
    and discarded only with --yes.

    Example: waxseal apply waxseal.yaml --dry-run
    """
    from ops.admin.read_session import explained
    from ops.config.apply import NeedsConfirmation, apply_config
    from ops.config.read_file import read_config
    from ops.settings import environment
    from ops.system.stack_file import settings_for

    with explained():
        settings = settings_for(data, "database_url", "keys")
        read = read_config(file, environment())
        try:
            difference = apply_config(read, settings, dry_run, prune, enable, give_up=terms.yes, who=terms.who)
        except NeedsConfirmation as needed:
            terms.confirm(needed.what)
            difference = apply_config(read, settings, dry_run, prune, enable, give_up=True, who=terms.who)
        show(difference)


COMMANDS: tuple[click.Command, ...] = (apply,)
