"""Commands that list the entries of a subject, and deliveries."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ops.cli.terminal.options import DATA, reads
from ops.cli.terminal.output import JSON, Column, moment, show_list
from ops.cli.terminal.time_range import LIMIT
from schemas.delivery import DeliveryState

if TYPE_CHECKING:
    from sqlalchemy import Engine

STATES = click.Choice(get_args(DeliveryState))

_ENTRY: tuple[Column, ...] = (
    ("seq", "seq"),
    ("recorded", moment("at")),
    ("type", "type"),
    ("source", "source"),
    ("id", "id"),
    ("body", lambda row: row["body"] if row["body"] is not None else _how_large(row)),
    ("hash", lambda row: row["hash"][:12]),
)
_DELIVERY: tuple[Column, ...] = (
    ("id", "id"),
    ("endpoint", "endpoint"),
    ("event", "event_id"),
    ("subject", "subject"),
    ("seq", "seq"),
    ("state", "state"),
    ("attempts", "attempts"),
    ("next", moment("next_attempt_at")),
    ("error", "error"),
    ("tries", lambda row: " ".join(str(each["status"] or each["error"]) for each in row["tries"])),
)


@click.command()
@click.argument("tenant")
@click.argument("subject")
@click.option("--after", type=int, default=-1, help="Only entries after this number.")
@LIMIT
@JSON
@DATA
def timeline(tenant: str, subject: str, after: int, limit: int | None, as_json: bool, data: Path) -> None:
    """Show what is recorded of a subject, oldest first.

    Example: waxseal timeline acme order-123 --json
    """
    from ops.admin.read_session import open_engine
    from ops.admin.timeline import timeline as entries
    from ops.system.stack_file import settings_for

    settings = settings_for(data, "database_url")
    with open_engine(settings) as engine:
        show_list(
            entries(engine, settings, tenant, subject, after, limit),
            _ENTRY,
            as_json,
            limited=limit is not None,
            none="no entries",
        )


@click.command()
@click.argument("tenant")
@click.option("--state", type=STATES, help="Only those in this state.")
@click.option("--endpoint", help="Only those to this endpoint.")
@LIMIT
@reads
def deliveries(
    engine: "Engine", tenant: str, state: str | None, endpoint: str | None, limit: int | None, as_json: bool
) -> None:
    """Show deliveries and their attempts, newest first.

    Example: waxseal deliveries acme --state dead
    """
    from ops.admin.timeline import deliveries as listed

    show_list(
        listed(engine, tenant, state, endpoint, limit), _DELIVERY, as_json, limited=limit is not None, none="no deliveries"
    )


def _how_large(row: Any) -> str:
    if (erased := row["erased"]) is not None:
        return (
            f"(erased by entry {erased['by_entry']}: {erased['reason']}, {erased['by']}, {erased['at'][:19].replace('T', ' ')})"
        )
    return "(gone)" if row["body_base64"] is None else f"({len(row['body_base64']) * 3 // 4} bytes)"


COMMANDS: tuple[click.Command, ...] = (timeline, deliveries)
