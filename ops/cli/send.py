"""The command that tests a source with a signed message."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import printable, show_json

if TYPE_CHECKING:
    from ops.admin.sample_message import Trial
    from ops.settings import Settings
    from schemas.source import Source

_LARGEST = 64 * 1024 * 1024  # bytes of a file to send; no source takes more
_SHOWN = ("content-type", "retry-after", "x-request-id")


@click.command()
@click.argument("tenant", required=False)
@click.argument("source", required=False)
@click.option("--url", help="Where to send it.  [default: the ingress of the running system]")
@click.option("--kind", help="By hand, without TENANT and SOURCE: the kind of source to send to at --url.")
@click.option("--secret", "secrets", multiple=True, help="Sign with this: a literal, env:NAME or file:PATH.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="By hand: an option of the kind.")
@click.option("--body", "file", type=click.File("rb"), help="Send this file instead of the sample; - is standard input.")
@click.option("--content-type", help="What the file holds.  [default: JSON if it is that]")
@click.option("--id", "id_", help="The id in the sample; the same once more is a duplicate.  [default: a fresh one]")
@click.option("--dry-run", is_flag=True, help="Print the request, without the secret, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@DATA
def send(
    tenant: str | None,
    source: str | None,
    url: str | None,
    kind: str | None,
    secrets: tuple[str, ...],
    options: tuple[str, ...],
    file: IO[bytes] | None,
    content_type: str | None,
    id_: str | None,
    dry_run: bool,
    as_json: bool,
    data: Path,
) -> int:
    """Sign a sample message as a source's sender would, post it, and print the answer.

    Works for every kind of source over HTTP. standard-webhooks signs v1 with a whsec_ secret, v1a with a private key, whsk_.
    Kind, options and secret of TENANT and SOURCE are taken from the database. By hand instead: --url, --kind (an unknown one
    is answered with the known kinds), --secret and --option. Exit code 0 for an answer of 2xx, else 1.

    \b
    Examples:
      waxseal send acme shop                          a sample, signed; 202 and its id
      waxseal send acme shop --dry-run                what would be sent
      waxseal send acme shop --id 7                   twice: recorded once
      waxseal send acme shop --body order.json        your own body
      waxseal send acme shop --secret wrong           401: is it checked at all?
      waxseal send acme cloud --secret file:whsk.txt  where the source has only a public key
      waxseal send --url https://hooks.acme.example/in/acme/pay --kind stripe --secret env:STRIPE_SECRET
    """  # noqa: D301 - \b is click's own mark for lines that are not to be wrapped
    from datetime import UTC, datetime

    from ops.admin.sample_message import Own, address, described, message
    from ops.settings import load_settings
    from ops.system.stack_file import settings_for

    context = click.get_current_context()
    named = tenant is not None and source is not None
    if named == (kind is not None) or (kind is not None and (url is None or tenant is not None)):
        raise click.UsageError("name TENANT and SOURCE, or give --url and --kind", context)
    settings = settings_for(data, "database_url", "keys") if named else load_settings()
    to = _target(settings, tenant, source, url, kind, secrets, options)
    body = None if file is None else file.read(_LARGEST + 1)
    if body is not None and len(body) > _LARGEST:
        raise click.UsageError(f"--body holds more than {_LARGEST} bytes, which no source takes", context)
    trial = message(to, url or address(data, settings, to), Own(id_, body, content_type), datetime.now(UTC))
    if dry_run:
        click.echo(described(trial))
        return 0
    return _posted(trial, as_json)


def _target(
    settings: "Settings",
    tenant: str | None,
    name: str | None,
    url: str | None,
    kind: str | None,
    secrets: tuple[str, ...],
    options: tuple[str, ...],
) -> "Source":
    from dataclasses import replace

    from ops.admin.sample_message import by_hand, configured
    from ops.config.read_file import resolved
    from ops.settings import environment

    context = click.get_current_context()
    try:
        known = tuple(resolved(environment(), Path(), secret) for secret in secrets)
    except ValueError as error:
        raise click.UsageError(f"--secret {error}", context) from None
    if kind is None:
        if options:
            raise click.UsageError("--option goes with --kind; a configured source has its own", context)
        found = configured(settings, str(tenant), str(name))
        return replace(found, secrets=known) if known else found
    pairs = [option.partition("=") for option in options]
    if not all(mark for _, mark, _ in pairs):
        raise click.UsageError("--option takes NAME=VALUE", context)
    return by_hand(kind, known, {key: value for key, _, value in pairs}, str(url))


def _posted(trial: "Trial", as_json: bool) -> int:
    from http.client import HTTPException

    from ops.errors import OpsError
    from workers.commands.post_sample import post

    try:
        answer = post(trial.url, trial.headers, trial.body)
    except (OSError, HTTPException) as error:
        raise OpsError(f"{trial.url} gives no answer ({error}): start it with `waxseal up`, or check --url") from error
    text = answer.body.decode(errors="replace")
    if as_json:
        show_json({"status": answer.status, "headers": dict(answer.headers), "body": text})
    else:
        click.echo(f"{answer.status} {printable(answer.reason)}")
        for name, value in answer.headers.items():
            if name.lower() in _SHOWN:
                click.echo(f"{name.lower()}: {printable(value)}")
        click.echo("\n" + "\n".join(map(printable, text.splitlines())))
    return 0 if 200 <= answer.status < 300 else 1


COMMANDS: tuple[click.Command, ...] = (send,)
