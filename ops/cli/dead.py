"""Commands on dead letters: what stopped, at every stage, and why."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from ops.cli.plain import PlainGroup
from ops.cli.run import DATA
from ops.cli.show import JSON, Column, moment, show_fields, show_list

_LETTER: tuple[Column, ...] = (
    ("id", "id"),
    ("last", moment("last_at")),
    ("stage", "stage"),
    ("state", "state"),
    ("reason", "reason"),
    ("tenant", "tenant"),
    ("to or from", lambda row: row["endpoint"] or row["source"] or row["routing_key"]),
    ("event", "event_id"),
    ("detail", "detail"),
)


class _Moment(click.ParamType[datetime]):
    """An RFC 3339 time or date, or how long ago, as 2h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from schemas.units import seconds

        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except ValueError:
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=seconds(value))
        except ValueError:
            self.fail(f"{value!r} is neither a time, as 2026-01-31T12:00:00Z, nor how long ago, as 2h", param, ctx)


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose dead letters, the same for every command on them."""
    for option in (
        click.option("--tenant", help="Only of this tenant."),
        click.option("--endpoint", help="Only of deliveries to this endpoint."),
        click.option("--reason", help="Only with this reason."),
        click.option("--since", type=_Moment(), help="Only from this time on: RFC 3339 in UTC, or 2h for two hours ago."),
        click.option("--until", type=_Moment(), help="Only before this time."),
        click.option("--id", "ids", type=int, multiple=True, help="Only this one; may be given several times."),
    ):
        command = option(command)
    return command


@click.group(cls=PlainGroup)
def dead() -> None:
    """Look at what could not go on.

    Messages that could not be admitted, deliveries whose schedule ended, and what else stopped, each with its reason.
    """


@dead.command("list")
@chosen
@click.option("--all", "closed", is_flag=True, help="Also those that were replayed or discarded.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@JSON
@DATA
def list_letters(
    tenant: str | None,
    endpoint: str | None,
    reason: str | None,
    since: datetime | None,
    until: datetime | None,
    ids: tuple[int, ...],
    closed: bool,
    limit: int | None,
    as_json: bool,
    data: Path,
) -> None:
    """List open dead letters, newest first.

    Example: waxseal dead list --tenant acme --since 2h
    """
    from ops.reader import open_engine
    from ops.stack import settings_for
    from ops.timeline import dead_letters
    from pipeline.store.reading import Letters

    wanted = Letters(tenant, endpoint, reason, since, until, ids or None, closed)
    with open_engine(settings_for(data, "database_url")) as engine:
        shown = show_list(dead_letters(engine, wanted, limit), _LETTER, as_json, limited=limit is not None)
    if not shown:
        click.echo("no dead letters", err=True)


@dead.command("show")
@click.argument("id_", metavar="[ID]...", type=int, nargs=-1)
@click.option("--id", "ids", type=int, multiple=True, help="The same as an argument.")
@JSON
@DATA
def show_letter(id_: tuple[int, ...], ids: tuple[int, ...], as_json: bool, data: Path) -> None:
    """Show dead letters with all that was kept of the message.

    Example: waxseal dead show 17
    """
    from ops.errors import OpsError
    from ops.reader import open_engine, snapshot
    from ops.stack import settings_for
    from ops.views import whole_letter_view
    from pipeline.store import reading

    if not (id_ or ids):
        raise click.UsageError("which one? `waxseal dead list` shows their ids", click.get_current_context())
    with open_engine(settings_for(data, "database_url")) as engine:
        for wanted in (*id_, *ids):
            with snapshot(engine) as conn:
                row = reading.letter(conn, wanted)
            if row is None:
                raise OpsError(f"there is no dead letter {wanted}; `waxseal dead list --all` shows them all")
            show_fields(whole_letter_view(row), as_json)


COMMANDS: tuple[click.Command, ...] = (dead,)
