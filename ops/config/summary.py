"""Prints what applying a configuration file changed."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ops.config.apply import Difference


def show(difference: "Difference") -> None:
    """Prints warnings, changes, and the new secrets, which are shown only this once."""
    for warning in difference.warnings:
        click.echo(f"Warning: {warning}", err=True)
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
