"""Commands on mails."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path

import click

from ops.cli.mail.documents import COMMANDS as DOCUMENTS
from ops.cli.mail.import_files import COMMANDS as IMPORTS
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_json

_LONGEST_WAIT = 86_400


@click.group(cls=PlainGroup, commands=(*DOCUMENTS, *IMPORTS))
def mail() -> None:
    """Pull mailboxes now, import mails, and show their documents.

    Example: waxseal mail sync acme support --wait 60
    """


@mail.command()
@click.argument("tenant", required=False)
@click.argument("name", required=False)
@click.option("--wait", type=click.IntRange(1, _LONGEST_WAIT), help="Wait at most this many seconds until it is done.")
@JSON
@DATA
def sync(tenant: str | None, name: str | None, wait: int | None, as_json: bool, data: Path) -> None:
    """Pull mailboxes now instead of when they are due: one, those of a tenant, or all.

    Mailboxes that are paused or were refused stay so.

    Example: waxseal mail sync acme support --wait 60
    """
    from ops.admin import mailboxes
    from ops.admin.read_session import open_engine
    from ops.errors import OpsError
    from ops.system.stack_file import settings_for

    with open_engine(settings_for(data, "database_url")) as engine:
        asked = mailboxes.sync(engine, tenant, name)
        errors: list[str] = []
        if wait is not None:
            with progress("pulling", len(asked)) as show:
                errors = mailboxes.wait_synced(engine, asked, wait, show)
    if as_json:
        show_json({"asked": len(asked), "errors": errors})
    else:
        click.echo(f"asked for {counted(len(asked), 'mailbox', 'mailboxes')}" + (" and pulled" if wait and not errors else ""))
    if errors:
        raise OpsError("; ".join(errors[:20]))


COMMANDS: tuple[click.Command, ...] = (mail,)
