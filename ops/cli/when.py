"""The options that choose a time range."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from datetime import UTC, datetime, timedelta
from typing import Any

import click


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time or date, or how long ago, as 2h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; a time without a zone is UTC."""
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


SINCE = click.option("--since", type=Moment(), help="Only from this time on: RFC 3339 in UTC, or 2h for two hours ago.")
UNTIL = click.option("--until", type=Moment(), help="Only before this time.")
LIMIT = click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
