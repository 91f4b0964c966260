"""Acts on many things: what they have in common on the command line. Counted first, agreed to, done at a rate, noted."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, progress

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.bulk import Step

_RATE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)(?:/([smh]))?", re.ASCII)
_BY = click.option("--by", "who", help="Who does it, for the audit.  [default: your login name]")
_YES = click.option("--yes", is_flag=True, help="Do it, without being asked.")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600}


class _Rate(click.ParamType[float]):
    """So many per second, minute or hour; a plain number is per second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, per second."""
        if isinstance(value, float):
            return value
        match = _RATE.fullmatch(value)
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no rate, as 500/s or 20/m", param, ctx)
        return float(match[1]) / _SECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class ActTerms:
    """How an act is to be done: without being asked, at which rate per second, in whose name, and told as JSON."""

    yes: bool
    rate: float
    who: str
    as_json: bool

    def agree(self, what: str) -> None:
        """Returns when it is agreed to: by `--yes`, or by whoever sits at the terminal. Raises `UsageError` or `Abort`."""
        if self.yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(f"to {what}, add --yes", click.get_current_context())
        click.confirm(f"{what[:1].upper()}{what[1:]}?", abort=True, err=True)

    def carry_out(self, engine: "Engine", name: str, filter_: Mapping[str, Any], planned: int, step: "Step") -> int:
        """Does it, with a bar on a terminal; gives how many it was done to."""
        from ops.admin.bulk import Act, Pace, perform

        with progress(name, planned) as show:
            return perform(engine, Act(self.who, name, filter_), planned, step, Pace(self.rate), show)


def naming(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an act on a single thing, as one argument `terms`."""

    @wraps(command)
    def act(who: str | None, as_json: bool, **others: Any) -> Any:
        return command(terms=ActTerms(True, 1.0, _name(who), as_json), **others)

    return JSON(_BY(act))


def deciding(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a single act that may have to be agreed to, as one argument `terms`."""

    @wraps(command)
    def act(yes: bool, who: str | None, **others: Any) -> Any:
        return command(terms=ActTerms(yes, 1.0, _name(who), False), **others)

    return _BY(_YES(act))


def acting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every act on many things, as one argument `terms`."""

    @wraps(command)
    def act(yes: bool, rate: float, who: str | None, as_json: bool, **others: Any) -> Any:
        return command(terms=ActTerms(yes, rate, _name(who), as_json), **others)

    chosen: Callable[..., Any] = act
    for option in (
        JSON,
        _BY,
        click.option("--rate", type=_Rate(), default="500/s", show_default=True, help="At most so many per s, m or h."),
        _YES,
    ):
        chosen = option(chosen)
    return chosen


def on_one(options: Callable[[Callable[..., Any]], Callable[..., Any]] = naming) -> Callable[..., Callable[..., Any]]:
    """What an act on one thing of a tenant takes, as `engine`, `named` and `terms`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.argument("tenant")
        @click.argument("name")
        @options
        @DATA
        @wraps(command)
        def act(tenant: str, name: str, terms: ActTerms, data: Path, **others: Any) -> Any:
            from ops.admin.bulk import Named
            from ops.admin.read_session import open_engine
            from ops.system.stack_file import settings_for

            with open_engine(settings_for(data, "database_url")) as engine:
                return command(engine=engine, named=Named(tenant, name, terms.who), terms=terms, **others)

        return act

    return decorate


def _name(who: str | None) -> str:
    from ops.servers.accounts import login_name

    name = login_name() if who is None else who.strip()
    if not name:
        raise click.UsageError("--by needs a name", click.get_current_context())
    return name
