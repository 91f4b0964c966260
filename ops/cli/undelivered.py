"""Commands on undelivered events: list them, and make planned tries due now."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.confirm import ActTerms, bulk_act
from ops.cli.terminal.options import DATA, reads
from ops.cli.terminal.output import Column, counted, moment, show_json, show_list
from ops.cli.terminal.time_range import LIMIT, SINCE, UNTIL

if TYPE_CHECKING:
    from sqlalchemy import Engine

_UNDELIVERED: tuple[Column, ...] = (
    ("id", "id"),
    ("recorded", moment("created_at")),
    ("endpoint", "endpoint"),
    ("event", "event_id"),
    ("subject", "subject"),
    ("seq", "seq"),
    ("state", "state"),
    ("next", moment("next_attempt_at")),
    ("attempts", "attempts"),
    ("reason", "reason"),
)
_PLANNED: tuple[Column, ...] = (
    ("count", "count"),
    ("endpoint", "endpoint"),
    ("earliest", moment("earliest")),
    ("latest", moment("latest")),
)
ENDPOINT = click.option("--endpoint", help="Only those to this endpoint.")


@click.command()
@click.argument("tenant")
@ENDPOINT
@SINCE
@UNTIL
@LIMIT
@reads
def undelivered(
    engine: "Engine",
    tenant: str,
    endpoint: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List every event that an endpoint does not have yet.

    Of the events recorded in a time range: state, reason and next try of each delivery that is not delivered, endpoint by
    endpoint. Nothing listed means that all of the range was delivered to everyone who subscribed.

    Example: waxseal undelivered acme --endpoint billing --since 1d
    """
    from ops.admin.undelivered import undelivered as listed

    found = islice(listed(engine, tenant, endpoint, since, until), limit)
    show_list(found, _UNDELIVERED, as_json, limited=limit is not None, none="everything was delivered")


@click.command()
@click.argument("tenant")
@ENDPOINT
@click.option("--id", "ids", type=int, multiple=True, help="Only this delivery; may be given several times.")
@bulk_act
@DATA
def retry(tenant: str, endpoint: str | None, ids: tuple[int, ...], terms: ActTerms, data: Path) -> None:
    """Try deliveries now that are planned for later.

    Makes deliveries that wait for their next try (`waxseal deliveries` shows it) due now. Their schedule continues from
    there. An endpoint that is disabled, paused by its breaker or limited in its rate stays so.

    Example: waxseal retry acme --endpoint billing --yes
    """
    from ops.admin.read_session import open_engine, snapshot
    from ops.admin.undelivered import MoveUp, endpoints_of
    from ops.admin.views import planned_view
    from ops.system.stack_file import settings_for

    asked = {"tenant": tenant, **({"endpoint": endpoint} if endpoint else {}), **({"ids": list(ids)} if ids else {})}
    with open_engine(settings_for(data, "database_url")) as engine:
        with snapshot(engine) as conn:
            endpoints = endpoints_of(conn, tenant, endpoint)
            move_up = MoveUp(conn, endpoints, ids or None)
        planned = sum(each.count for each in move_up.counted)
        if not planned:
            click.echo("nothing is planned for later", err=True)
            return
        names = {id_: name for name, id_ in endpoints.items()}
        show_list((planned_view(each, names[each.endpoint_id]) for each in move_up.counted), _PLANNED, terms.as_json)
        terms.confirm(f"try {counted(planned, 'delivery', 'deliveries')} now")
        done = terms.carry_out(engine, "retry", asked, planned, move_up)
    if terms.as_json:
        show_json({"due": done, "counted": planned})
    else:
        click.echo(f"{counted(done, 'delivery', 'deliveries')} due now")


COMMANDS: tuple[click.Command, ...] = (undelivered, retry)
