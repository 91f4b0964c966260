"""Commands on mailboxes: their state, pausing and resuming, resync."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from typing import TYPE_CHECKING, Any

import click

from ops.cli.mail.reauthorize import reauthorize
from ops.cli.terminal.confirm import ActTerms, on_named
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.terminal.options import reads
from ops.cli.terminal.output import Column, counted, moment, show_fields, show_json, show_list

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.bulk import Named


def _backfill(row: Any) -> str:
    if row["backfill_finished"]:
        return "done"
    total = row["backfill_total"]
    return f"{row['backfill_done']}" if total is None else f"{row['backfill_done']} of {total}"


def _error(row: Any) -> str | None:
    if row["unreadable"] and not row["reason"] and not row["error"]:
        return f"{counted(row['unreadable'], 'folder', 'folders')} cannot be read, see `waxseal mailbox status`"
    error: str | None = row["reason"] or row["error"]
    return error


_MAILBOX: tuple[Column, ...] = (
    ("tenant", "tenant"),
    ("name", "name"),
    ("kind", "kind"),
    ("state", lambda row: "failing" if row["state"] == "active" and row["failures"] else row["state"]),
    ("backfill", _backfill),
    ("last pulled", moment("pulled_at")),
    ("next pull", moment("next_pull_at")),
    ("failures", "failures"),
    ("last error", _error),
)


@click.group(cls=PlainGroup)
def mailbox() -> None:
    """List mailboxes; pause, resume, resync and reauthorize them.

    `waxseal audit` and `waxseal events` show what was done.

    Example: waxseal mailbox list acme
    """


@mailbox.command("list")
@click.argument("tenant", required=False)
@reads
def list_mailboxes(engine: "Engine", tenant: str | None, as_json: bool) -> None:
    """List mailboxes: state, progress of the backfill, last error.

    Example: waxseal mailbox list acme
    """
    from ops.admin.mailboxes import list_mailboxes as listed

    show_list(listed(engine, tenant), _MAILBOX, as_json, none="no mailboxes")


@mailbox.command()
@click.argument("tenant")
@click.argument("name")
@reads
def status(engine: "Engine", tenant: str, name: str, as_json: bool) -> None:
    """Show one mailbox: state, errors, and progress by folder.

    Example: waxseal mailbox status acme support
    """
    from ops.admin.bulk import Named
    from ops.admin.mailboxes import show_mailbox

    show_fields(show_mailbox(engine, Named(tenant, name)), as_json)


@mailbox.command()
@click.option("--reason", default="by an operator", show_default=True, help="Why; recorded with the event.")
@on_named()
def pause(engine: "Engine", named: "Named", terms: ActTerms, reason: str) -> None:
    """Stop pulling a mailbox until it is resumed. Nothing is lost: mail that arrives meanwhile is read then.

    Example: waxseal mailbox pause acme support --reason "they move to another server"
    """
    from ops.admin import mailboxes

    moved = mailboxes.pause(engine, named, reason)
    _say(terms, named, "is paused" if moved else "was not active", moved)


@mailbox.command()
@on_named()
def resume(engine: "Engine", named: "Named", terms: ActTerms) -> None:
    """Pull a mailbox again that is paused or whose credentials were refused.

    Example: waxseal mailbox resume acme support
    """
    from ops.admin import mailboxes

    moved = mailboxes.resume(engine, named)
    _say(terms, named, "is active" if moved else "was active already", moved)


@mailbox.command()
@click.option("--folder", help="Only this one.  [default: all]")
@on_named()
def resync(engine: "Engine", named: "Named", terms: ActTerms, folder: str | None) -> None:
    """Compare a mailbox with the mails that were fetched from it, and fetch those that are missing.

    No mail is fetched again, and nothing is recorded twice.

    Example: waxseal mailbox resync acme support --folder INBOX
    """
    from ops.admin import mailboxes

    _say(terms, named, "is compared anew", mailboxes.resync(engine, named, folder))


def _say(terms: ActTerms, named: "Named", what: str, moved: bool) -> None:
    if terms.as_json:
        show_json({"tenant": named.tenant, "mailbox": named.name, "changed": moved})
    else:
        click.echo(f"{named.tenant}/{named.name} {what}")


mailbox.add_command(reauthorize)

COMMANDS: tuple[click.Command, ...] = (mailbox,)
