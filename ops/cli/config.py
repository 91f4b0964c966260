"""The command that configures."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.agree import Terms, deciding
from ops.cli.run import DATA

if TYPE_CHECKING:
    from ops.apply import Difference


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--prune", is_flag=True, help="Remove what the file does not name. Tenants with entries always stay.")
@click.option("--enable", is_flag=True, help="Enable endpoints again that answered 410 Gone.")
@deciding
@DATA
def apply(file: Path, dry_run: bool, prune: bool, enable: bool, terms: Terms, data: Path) -> None:
    """Configure tenants, sources, endpoints and mailboxes as FILE says; - is standard input.

    All or nothing. What is already as FILE says is not touched. Running processes follow within a second. Errors name their
    lines. A secret is a literal, env:NAME or file:PATH. With --prune, undelivered events of removed endpoints are counted,
    and discarded only with --yes.

    Example: waxseal apply waxseal.yaml --dry-run
    """
    from ops.apply import Unagreed, apply_config
    from ops.config_file import read_config
    from ops.reader import explained
    from ops.settings import environment
    from ops.stack import settings_for

    with explained():
        settings = settings_for(data, "database_url", "keys")
        read = read_config(file, environment())
        try:
            difference = apply_config(read, settings, dry_run, prune, enable, give_up=terms.yes, who=terms.who)
        except Unagreed as asked:
            terms.agree(asked.what)
            difference = apply_config(read, settings, dry_run, prune, enable, give_up=True, who=terms.who)
        show(difference)


def show(difference: "Difference") -> None:
    """Prints what changed, and the secrets that were made: the only time that they can be seen."""
    for doubt in difference.doubts:
        click.echo(f"Warning: {doubt}", err=True)
    for change in difference.changes:
        if change.action != "unchanged":
            details = "; ".join(change.details)
            click.echo(f"{change.action:<8} {change.item:<9} {change.title:<30} {details}".rstrip())
    counts = dict.fromkeys(("created", "changed", "removed", "unchanged", "kept"), 0)
    for change in difference.changes:
        counts[change.action] += 1
    gives_up = difference.gives_up
    counts |= {"deliveries given up" if gives_up != 1 else "delivery given up": gives_up}
    would = "; nothing was written: this was a dry run" if difference.dry_run else ""
    click.echo(", ".join(f"{count} {action}" for action, count in counts.items() if count) + would)
    for endpoint, secret in difference.generated.items():
        click.echo(f"\nThe receiver of {endpoint} verifies signatures with this secret, which is shown only now:\n  {secret}")


COMMANDS: tuple[click.Command, ...] = (apply,)
