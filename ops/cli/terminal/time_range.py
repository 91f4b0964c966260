"""The options that choose a time range."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from datetime import UTC, datetime, timedelta
from typing import Any

import click


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time or date, or a duration before now, such as 2h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; a time without a zone is UTC."""
        from schemas.units import seconds

        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except ValueError:
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=seconds(value))
        except ValueError:
            self.fail(f"{value!r} is neither a time, as 2026-01-31T12:00:00Z, nor how long ago, as 2h", param, ctx)


def _in_order(context: click.Context, parameter: click.Parameter, value: datetime | None) -> datetime | None:
    """Refuses an empty time range. Both options call it, because click may read either of them last."""
    ends = {**context.params, parameter.name: value}
    since, until = ends.get("since"), ends.get("until")
    if since is not None and until is not None and since >= until:
        raise click.UsageError(f"--since {since:%Y-%m-%dT%H:%M:%SZ} is not before --until {until:%Y-%m-%dT%H:%M:%SZ}", context)
    return value


SINCE = click.option(
    "--since", type=Moment(), callback=_in_order, help="Only from this time on: RFC 3339 in UTC, or 2h for two hours ago."
)
UNTIL = click.option("--until", type=Moment(), callback=_in_order, help="Only before this time.")
LIMIT = click.option("--limit", type=click.IntRange(min=1), help="At most this many.  [default: 200, or all with --json]")
