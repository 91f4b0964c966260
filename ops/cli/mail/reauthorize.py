"""The command that gives a mailbox new consent; part of the group `waxseal mailbox`."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import sys
from pathlib import Path

import click

from ops.cli.terminal.confirm import ActTerms, single_act
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import show_json

_LONGEST = 16_384  # characters of a token


@click.command()
@click.argument("tenant")
@click.argument("name")
@click.option("--refresh-token", "given", help="env:NAME, file:PATH or - for standard input.  [default: -]")
@click.option("--device", is_flag=True, help="Show a code to enter in a browser instead; Microsoft only.")
@single_act
@DATA
def reauthorize(tenant: str, name: str, given: str | None, device: bool, terms: ActTerms, data: Path) -> None:
    """Give a mailbox new consent, after the old was revoked or has expired.

    The new refresh token is tried at once. If it works, it is stored, encrypted, and the mailbox is pulled again. It is used
    until the configuration names another.

    \b
    Examples:
      waxseal mailbox reauthorize acme support --device
      waxseal mailbox reauthorize acme support --refresh-token env:NEW_TOKEN
      waxseal mailbox reauthorize acme support < token.txt
    """  # noqa: D301 - \b is click's own mark for lines that are not to be wrapped
    from ops.admin.mailboxes import configured
    from ops.admin.read_session import open_engine
    from ops.runtime.vault import Vault
    from ops.system.stack_file import settings_for
    from workers.mail.oauth.consent import take_over, with_code

    if device and given is not None:
        raise click.UsageError("give --device or --refresh-token", click.get_current_context())
    settings = settings_for(data, "database_url", "keys")
    vault = Vault(settings.fernet_keys())
    with open_engine(settings) as engine:
        mailbox = configured(engine, settings, tenant, name)
        if device:
            needed = with_code(engine, vault, mailbox, _show, terms.who)
        else:
            needed = take_over(engine, vault, mailbox, _token(given or "-"), terms.who)
    if terms.as_json:
        show_json({"tenant": tenant, "mailbox": name, "changed": needed})
        return
    click.echo(f"{tenant}/{name} has a new token" + ("; it is pulled again" if needed else ""))


def _show(what_to_do: str) -> None:
    click.echo(what_to_do, err=True)


def _token(given: str) -> str:
    """The token itself. It is refused on the command line, where other users could read it."""
    from ops.config.read_file import resolved
    from ops.settings import environment

    context = click.get_current_context()
    if given == "-":
        asked = click.prompt("Refresh token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read(_LONGEST)
        token = str(asked).strip()
    elif given.startswith(("env:", "file:")):
        try:
            token = resolved(environment(), Path(), given)
        except ValueError as error:
            raise click.UsageError(f"--refresh-token: {error}", context) from None
    else:
        raise click.UsageError("--refresh-token takes env:NAME, file:PATH or -: others can read a command line", context)
    if not token or not token.isprintable():
        raise click.UsageError("--refresh-token: that is no token", context)
    return token
