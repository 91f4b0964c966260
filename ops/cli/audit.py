"""Commands that list operators' acts and operator events."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.options import reads
from ops.cli.terminal.output import Column, moment, show_list
from ops.cli.terminal.time_range import LIMIT, SINCE, UNTIL

if TYPE_CHECKING:
    from sqlalchemy import Engine


def _somewhere(said: str, row: Mapping[str, Any]) -> str:
    """With the cell in which it was, if a tenant has come from there since."""
    return f"{said} (in {row['cell']})" if row["cell"] else said


_ACT: tuple[Column, ...] = (
    ("id", "id"),
    ("at", moment("at")),
    ("who", "who"),
    ("act", "act"),
    ("which", lambda row: _somewhere(" ".join(f"{name}={value}" for name, value in row["filter"].items()) or "all", row)),
    ("planned", "planned"),
    ("done", lambda row: "cut off, or still running" if row["done"] is None else row["done"]),
)
_EVENT: tuple[Column, ...] = (
    ("id", "id"),
    ("at", moment("at")),
    ("kind", "kind"),
    ("tenant", "tenant"),
    ("endpoint", lambda row: row["endpoint"] or row["mailbox"]),
    ("detail", lambda row: _somewhere(row["detail"], row)),
)


@click.command()
@click.option("--tenant", help="Only on this tenant.")
@SINCE
@UNTIL
@LIMIT
@reads
def audit(
    engine: "Engine", tenant: str | None, since: datetime | None, until: datetime | None, limit: int | None, as_json: bool
) -> None:
    """List what operators did, newest first.

    Who did what, when, to what, how many were planned, and how many were done. With --json all that is known of each act, one
    line for each, for an archive.

    Example: waxseal audit --since 7d
    """
    from ops.admin.history import acts

    show_list(acts(engine, since, until, limit, tenant), _ACT, as_json, limited=limit is not None, none="no acts")


@click.command()
@click.option("--tenant", help="Only of this tenant.")
@SINCE
@UNTIL
@LIMIT
@reads
def events(
    engine: "Engine", tenant: str | None, since: datetime | None, until: datetime | None, limit: int | None, as_json: bool
) -> None:
    """List operator events, newest first: disabled endpoints, open breakers, mailboxes, broken chains, crash loops.

    Example: waxseal events --since 1d
    """
    from ops.admin.history import events as happened

    show_list(happened(engine, tenant, since, until, limit), _EVENT, as_json, limited=limit is not None, none="no events")


COMMANDS: tuple[click.Command, ...] = (audit, events)
