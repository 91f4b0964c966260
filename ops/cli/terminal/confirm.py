"""Options and steps that acts share: they are counted, confirmed, done at a rate, and audited."""

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


class Rate(click.ParamType[float]):
    """A rate per second, minute or hour; a plain number is per second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, per second."""
        if isinstance(value, float):
            return value
        match = _RATE.fullmatch(value)
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is no rate; write it as 500/s or 20/m", param, ctx)
        return float(match[1]) / _SECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class ActTerms:
    """How an act is done: confirmed by `yes`, at a rate per second, in whose name, and whether its output is JSON."""

    yes: bool
    rate: float
    who: str
    as_json: bool

    def confirm(self, what: str) -> None:
        """Returns if the act is confirmed, by `--yes` or at the terminal. Raises `UsageError` or `Abort` otherwise."""
        if self.yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(f"to {what}, add --yes", click.get_current_context())
        click.confirm(f"{what[:1].upper()}{what[1:]}?", abort=True, err=True)

    def carry_out(self, engine: "Engine", name: str, filter_: Mapping[str, Any], planned: int, step: "Step") -> int:
        """Performs the act, with a progress bar on a terminal; returns how many rows were processed."""
        from ops.admin.bulk import Act, Pace, perform

        with progress(name, planned) as show:
            return perform(engine, Act(self.who, name, filter_), planned, step, Pace(self.rate), show)


def single_act(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of an act that needs no confirmation; the command gets them as one argument `terms`."""

    @wraps(command)
    def act(who: str | None, as_json: bool, **others: Any) -> Any:
        return command(terms=ActTerms(True, 1.0, _name(who), as_json), **others)

    return JSON(_BY(act))


def confirmed_act(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a single act that may need confirmation; the command gets them as one argument `terms`."""

    @wraps(command)
    def act(yes: bool, who: str | None, **others: Any) -> Any:
        return command(terms=ActTerms(yes, 1.0, _name(who), False), **others)

    return _BY(_YES(act))


def bulk_act(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of an act on many rows; the command gets them as one argument `terms`."""

    @wraps(command)
    def act(yes: bool, rate: float, who: str | None, as_json: bool, **others: Any) -> Any:
        return command(terms=ActTerms(yes, rate, _name(who), as_json), **others)

    chosen: Callable[..., Any] = act
    for option in (
        JSON,
        _BY,
        click.option("--rate", type=Rate(), default="500/s", show_default=True, help="At most this many per s, m or h."),
        _YES,
    ):
        chosen = option(chosen)
    return chosen


def on_named(options: Callable[[Callable[..., Any]], Callable[..., Any]] = single_act) -> Callable[..., Callable[..., Any]]:
    """Adds TENANT, NAME and options; the command gets `engine`, `named` and `terms`."""

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
