"""Commands on dead letters of every stage: list, show, replay, discard."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ops.cli.terminal.confirm import ActTerms, bulk_act
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.terminal.options import DATA, reads
from ops.cli.terminal.output import JSON, Column, counted, moment, show_fields, show_json, show_list, some
from ops.cli.terminal.time_range import LIMIT, SINCE, UNTIL
from schemas.dead_letter import DeadLetterFilter, Stage

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.bulk import Step
    from ops.admin.replay import Decision
    from ops.settings import Settings

_LETTER: tuple[Column, ...] = (
    ("id", "id"),
    ("last", moment("last_at")),
    ("stage", "stage"),
    ("state", "state"),
    ("reason", "reason"),
    ("tenant", "tenant"),
    ("to or from", lambda row: row["endpoint"] or row["source"] or row["routing_key"]),
    ("event", "event_id"),
    ("attempts", "attempts"),
    ("detail", "detail"),
)
_GROUP: tuple[Column, ...] = (
    ("count", "count"),
    ("stage", "stage"),
    ("reason", "reason"),
    ("tenant", "tenant"),
    ("endpoint", "endpoint"),
    ("oldest", moment("oldest")),
    ("newest", moment("newest")),
)
_REASON: tuple[Column, ...] = (
    ("count", "count"),
    ("stage", "stage"),
    ("reason", "reason"),
    ("tenants", lambda row: some(row["tenants"])),
    ("endpoints", lambda row: some(row["endpoints"])),
    ("oldest", moment("oldest")),
    ("newest", moment("newest")),
)
ALL_OPEN = click.option("--all", "everything", is_flag=True, help="All that are open, when nothing else is chosen.")


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose dead letters; the command gets them as one argument `wanted`."""

    @wraps(command)
    def choose(ids: tuple[int, ...], **others: Any) -> Any:
        asked = {name: others.pop(name) for name in ("tenant", "endpoint", "reason", "stage", "since", "until")}
        return command(wanted=DeadLetterFilter(**asked, ids=list(ids) or None), **others)

    chosen: Callable[..., Any] = choose
    for option in (
        click.option("--id", "ids", type=int, multiple=True, help="Only this one; may be given several times."),
        UNTIL,
        SINCE,
        click.option("--stage", type=click.Choice(get_args(Stage)), help="Only of this stage."),
        click.option("--reason", help="Only with this reason."),
        click.option("--endpoint", help="Only of deliveries to this endpoint."),
        click.option("--tenant", help="Only of this tenant."),
    ):
        chosen = option(chosen)
    return chosen


@click.group(cls=PlainGroup)
def dead() -> None:
    """List, show, replay and discard dead letters.

    They are messages that could not be recorded and deliveries that are dead, each with its reason.

    Example: waxseal dead list --tenant acme --since 2h
    """


@dead.command("list")
@chosen
@click.option("--all", "closed", is_flag=True, help="Also those that were replayed or discarded.")
@click.option(
    "--rows/--groups",
    "rows",
    default=None,
    help="List each dead letter, or count them by reason.  [default: --groups, but --rows with --json, --id or --limit]",
)
@LIMIT
@reads
def list_dead_letters(
    engine: "Engine", wanted: DeadLetterFilter, closed: bool, rows: bool | None, limit: int | None, as_json: bool
) -> None:
    """Count open dead letters by stage and reason, or list them, newest first.

    Example: waxseal dead list --rows --reason exhausted --since 2h
    """
    from dataclasses import replace

    from ops.admin.timeline import count_dead_letters, dead_letters, dead_letters_by_reason

    wanted = replace(wanted, closed=closed)
    if rows or (rows is None and (as_json or wanted.ids or limit is not None)):
        found, total = dead_letters(engine, wanted, limit), partial(count_dead_letters, engine, wanted)
        show_list(found, _LETTER, as_json, limited=limit is not None, total=total, none="no dead letters")
        return
    groups = dead_letters_by_reason(engine, wanted, limit)
    if show_list(groups, _REASON, as_json, limited=limit is not None, none="no dead letters") and not as_json:
        click.echo("List those of one reason: waxseal dead list --rows --reason REASON", err=True)


@dead.command("show")
@click.argument("id_", metavar="[ID]...", type=int, nargs=-1)
@click.option("--id", "ids", type=int, multiple=True, help="The same as an argument.")
@JSON
@DATA
def show_dead_letters(id_: tuple[int, ...], ids: tuple[int, ...], as_json: bool, data: Path) -> None:
    """Show dead letters with the whole message, or every try of the delivery.

    Example: waxseal dead show 17
    """
    from ops.admin.read_session import open_engine
    from ops.admin.timeline import dead_letter
    from ops.system.stack_file import settings_for

    if not (id_ or ids):
        raise click.UsageError("which one? `waxseal dead list` shows their ids", click.get_current_context())
    settings = settings_for(data, "database_url")
    with open_engine(settings) as engine:
        for wanted in (*id_, *ids):
            show_fields(dead_letter(engine, settings, wanted), as_json)


@dead.command("replay")
@chosen
@ALL_OPEN
@bulk_act
@DATA
def replay_dead_letters(wanted: DeadLetterFilter, everything: bool, terms: ActTerms, data: Path) -> None:
    """Replay dead letters by their normal route, under the same id.

    A delivery is due at once, with its schedule from the start. A message goes back to the inbox as it came, and is marked as
    replayed when the broker has confirmed it. What fails again becomes a new dead letter. If interrupted, the same command
    does the rest.

    Example: waxseal dead replay --tenant acme --endpoint billing --since 2h
    """
    from ops.admin.replay import replay
    from ops.system.stack_file import settings_for
    from workers.commands.republish import inbox

    settings = settings_for(data, "database_url")
    with inbox(settings) as publish:
        _decide(wanted, everything, terms, settings, ("replay", "replayed"), lambda it: partial(replay, it, publish))


@dead.command("discard")
@chosen
@ALL_OPEN
@bulk_act
@DATA
def discard_dead_letters(wanted: DeadLetterFilter, everything: bool, terms: ActTerms, data: Path) -> None:
    """Close dead letters without delivering them.

    They stay in the list with --all, and what is in the ledger stays there. A delivery among them becomes discarded.

    Example: waxseal dead discard --reason unknown_tenant --until 30d
    """
    from ops.admin.replay import discard
    from ops.system.stack_file import settings_for

    settings = settings_for(data, "database_url")
    _decide(wanted, everything, terms, settings, ("discard", "discarded"), lambda it: partial(discard, it))


def _decide(
    wanted: DeadLetterFilter,
    everything: bool,
    terms: ActTerms,
    settings: "Settings",
    verb: tuple[str, str],
    step: "Callable[[Decision], Step]",
) -> None:
    """Counts the dead letters, asks, and decides them. Raises `OpsError` if some were left open."""
    from ops.admin.read_session import open_engine
    from ops.admin.replay import decision_on
    from ops.admin.views import group_view
    from ops.errors import OpsError

    if not (wanted.asked() or everything):
        raise click.UsageError(f"which ones? choose some, or {verb[0]} --all", click.get_current_context())
    with open_engine(settings) as engine:
        decision = decision_on(engine, wanted, terms.who)
        planned = sum(group.count for group in decision.counted)
        if not planned:
            click.echo("no dead letters", err=True)
            return
        show_list(map(group_view, decision.counted), _GROUP, terms.as_json)
        terms.confirm(f"{verb[0]} {counted(planned, 'dead letter', 'dead letters')}")
        done = terms.carry_out(engine, f"dead {verb[0]}", wanted.asked(), planned, step(decision))
    if terms.as_json:
        show_json({verb[1]: done, "counted": planned})
    else:
        click.echo(f"{verb[1]} {counted(done, 'dead letter', 'dead letters')}")
    left = [f"{count} left open: {why}" for why, count in decision.left.items() if count]
    if left:
        raise OpsError("; ".join(left))


COMMANDS: tuple[click.Command, ...] = (dead,)
