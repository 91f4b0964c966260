"""Commands of the console: the process, and the tokens that open it."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.processes import run_process
from ops.cli.terminal.confirm import ActTerms, single_act
from ops.cli.terminal.options import DATA, reads
from ops.cli.terminal.output import Column, counted, moment, show_fields, show_list

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from schemas.access import Role

_TOKEN: tuple[Column, ...] = (
    ("id", "id"),
    ("who", "who"),
    ("role", "role"),
    ("tenant", lambda row: row["tenant"] or "all"),
    ("state", "state"),
    ("expires", moment("expires_at")),
    ("last used", moment("last_used_at")),
    ("made by", "created_by"),
)
_SESSION: tuple[Column, ...] = (
    ("id", "id"),
    ("who", "who"),
    ("by", lambda row: f"token {row['token']}" if row["token"] else row["issuer"]),
    ("may", lambda row: ", ".join(f"{role} of {'all' if where == '*' else where}" for where, role in row["grants"].items())),
    ("address", "address"),
    ("since", moment("created_at")),
    ("last seen", moment("seen_at")),
    ("until", moment("ends_at")),
)


class Lasting(click.ParamType[timedelta]):
    """A length of time, such as 12h or 90d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        from schemas.units import seconds

        if isinstance(value, timedelta):
            return value
        try:
            return timedelta(seconds=seconds(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no length of time; write it as 30m, 12h or 90d", param, ctx)


@click.command()
@DATA
def console(data: Path) -> None:
    """Run the console and its API.

    Pages and operations for those whom a token or a login lets in. `waxseal token new` makes a token.

    Example: WAXSEAL_CONSOLE_HOST=0.0.0.0 waxseal console
    """
    from workers.console.worker import run

    run_process(run, data, "database_url", "keys")


@click.group()
def token() -> None:
    """Tokens that open the console and its API.

    Each is for one person or program, with a role, for one tenant or for all, and expires. Paste it into the console's login
    page, or send it with each request to the API: `Authorization: Bearer wxs_...`. Only its hash is stored.

    Example: waxseal token new --role operator --tenant acme --who deploy-bot --lasts 30d
    """


@token.command("new")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="viewer",
    show_default=True,
    help="viewer sees all but contents and secrets; operator also replays, pauses and sees contents; admin also configures.",
)
@click.option("--tenant", help="Only for this tenant; the others do not exist for it.  [default: for all]")
@click.option("--lasts", type=Lasting(), help="How long it is valid; at most 366d.  [default: 90d, or 15m with --once]")
@click.option("--who", "whose", help="Who uses it: the audit names them.  [default: who makes it]")
@click.option("--once", is_flag=True, help="Good for one login to the console, which ends when the token expires; at most 1d.")
@single_act
@DATA
def new(
    role: "Role", tenant: str | None, lasts: timedelta | None, whose: str | None, once: bool, terms: ActTerms, data: Path
) -> None:
    """Make a token, and show it once.

    It cannot be shown again: if it is lost, revoke it and make another. Output that is not a terminal has the token alone, so
    that a variable can take it; --json has its other fields too. Needs the login of the database's owner or of the console.

    Example: TOKEN="$(waxseal token new --role operator --tenant acme --lasts 30d)"
    """
    import sys

    from ops.admin.access import tokens
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import read_stack, settings_for

    settings = settings_for(data, "database_url")
    lasts = lasts or (timedelta(minutes=15) if once else timedelta(days=90))
    with open_engine(settings) as engine:
        named = terms.who if whose is None else whose
        view, text = tokens.new(engine, who=named, role=role, tenant=tenant, lasts=lasts, by=terms.who, once=once)
    if terms.as_json:
        show_fields({**view, "token": text}, as_json=True)
        return
    click.echo(text)
    if sys.stdout.isatty():
        url = settings.console_url or (read_stack(data) or {}).get("console_url")
        if once and url:
            click.echo(f"As a link: {url.rstrip('/')}/login#{text}", err=True)
        where = "every tenant" if tenant is None else tenant
        click.echo(f"{role} for {where}, until {moment('expires_at')(view)} UTC. It is not shown again.", err=True)


@token.command("list")
@click.option("--tenant", help="Only of this tenant.")
@reads
def list_(engine: "Engine", tenant: str | None, as_json: bool) -> None:
    """List tokens, newest first: whose, what for, until when, and when each was last used. Never the tokens themselves.

    Example: waxseal token list --tenant acme
    """
    from ops.admin.access import tokens

    none = "no token yet: `waxseal token new` makes one"
    show_list(tokens.listed(engine, tenant), _TOKEN, as_json, limited=True, none=none)


@token.command("revoke")
@click.argument("id_", metavar="ID")
@single_act
@DATA
def revoke(id_: str, terms: ActTerms, data: Path) -> int:
    """Revoke a token, by the ID that `waxseal token list` shows. The next request with it is refused.

    Sessions of the console that it began end with it. Exit code 1 if there is no such token, or it is revoked already.

    Example: waxseal token revoke 7Hq2LmPz
    """
    from ops.admin.access import tokens
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    with open_engine(settings_for(data, "database_url")) as engine:
        revoked = tokens.revoke(engine, id_, terms.who)
    if terms.as_json:
        show_fields({"id": id_, "revoked": revoked}, as_json=True)
    else:
        click.echo(f"revoked {id_}" if revoked else f"there is no token {id_} that could be revoked: see `waxseal token list`")
    return int(not revoked)


@click.group()
def session() -> None:
    """Sessions of people who are logged in to the console.

    Example: waxseal session list
    """


@session.command("list")
@reads
def list_sessions(engine: "Engine", as_json: bool) -> None:
    """List the sessions in use, newest first: whose, by which token or provider, from where, until when.

    Example: waxseal session list
    """
    from ops.admin.access import sessions

    show_list(sessions.listed(engine), _SESSION, as_json, limited=True, none="nobody is logged in")


@session.command("end")
@click.argument("id_", metavar="ID", required=False)
@click.option("--who", "whose", help="All sessions of this name, instead of one.")
@single_act
@DATA
def end(id_: str | None, whose: str | None, terms: ActTerms, data: Path) -> int:
    """End a session at once, by the ID that `waxseal session list` shows, or all of a person.

    The next request with it is asked to log in. A token that began it is still good: revoke it, too. Exit code 1 if there is no
    session in use with the ID.

    Example: waxseal session end --who ann@acme.example
    """
    from ops.admin.access import sessions
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    if (id_ is None) is (whose is None):
        raise click.UsageError("say which: an ID, or --who NAME", click.get_current_context())
    with open_engine(settings_for(data, "database_url")) as engine:
        if id_ is not None:
            ended = int(sessions.end(engine, id_, terms.who))
        else:
            ended = sessions.end_all(engine, str(whose), terms.who)
    if terms.as_json:
        show_fields({"ended": ended}, as_json=True)
    else:
        click.echo(f"ended {counted(ended, 'session', 'sessions')}" if ended else "there is no such session in use")
    return int(id_ is not None and not ended)


COMMANDS: tuple[click.Command, ...] = (console, token, session)
