"""The command that imports mails from files; part of the group `waxseal mail`."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_json

if TYPE_CHECKING:
    from ops.admin.mail_files import Form, MailFile, Quoting
    from ops.settings import Settings
    from workers.mail.pull.publish import MailIntake

_TOLD = 5  # faults named in the error line


@click.command("import")
@click.argument("tenant")
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(["mbox", "maildir", "eml"]), help="Form of the files.  [default: detected]")
@click.option(
    "--quoting",
    type=click.Choice(["mboxrd", "mboxo", "none"]),
    default="mboxrd",
    show_default=True,
    help="How lines that begin with `From ` are quoted in an mbox.",
)
@click.option("--crlf", is_flag=True, help="End lines as IMAP does, so that mails that were pulled before are recognised.")
@click.option("--dry-run", is_flag=True, help="Only count what would be imported.")
@JSON
@DATA
def import_mails(
    tenant: str,
    name: str,
    paths: tuple[Path, ...],
    form: "Form | None",
    quoting: "Quoting",
    crlf: bool,
    dry_run: bool,
    as_json: bool,
    data: Path,
) -> None:
    """Import mails from mbox files, Maildirs and .eml files, or folders of them, into a mailbox.

    Each mail is recorded once, byte for byte. Mails that are recorded already are skipped, so repeating an interrupted
    command does the rest. Their events are marked as backfill, and delivered like other backfill of the mailbox.

    Example: waxseal mail import acme support ~/archive.mbox ~/Maildir
    """
    from ops.admin.mail_files import find_files, total
    from ops.admin.mailboxes import configured
    from ops.admin.read_session import open_engine, snapshot, tenant_keys
    from ops.errors import OpsError
    from ops.system.stack_file import settings_for
    from workers.commands.import_mails import Importer

    settings = settings_for(data, "database_url", "keys")
    with open_engine(settings) as engine, _intake(settings, dry_run=dry_run) as intake:
        mailbox = configured(engine, settings, tenant, name)
        with snapshot(engine) as conn:
            key = (tenant_keys(conn, settings) or {}).get(tenant)
        files: list[MailFile] = [file for path in paths for file in find_files(path, form)]
        with progress("importing", total(files)) as show:
            done = Importer(engine, mailbox, intake, key).run(files, quoting, crlf=crlf, show=show)
    if as_json:
        show_json({name: getattr(done, name) for name in ("found", "new", "held", "bytes", "files", "failed", "faults")})
    else:
        verb = "would import" if dry_run else "imported"
        held = f"; {counted(done.held, 'was', 'were')} there already" if done.held else ""
        click.echo(f"{verb} {counted(done.new, 'mail', 'mails')} of {counted(done.files, 'file', 'files')}{held}")
    if done.failed:
        raise OpsError(f"{done.failed} could not be read: {'; '.join(done.faults[:_TOLD])}")
    if not done.found:
        raise OpsError("there are no mails: name mbox files, Maildirs, .eml files, or folders of them")


@contextmanager
def _intake(settings: "Settings", *, dry_run: bool) -> "Iterator[MailIntake | None]":
    if dry_run:
        yield None
        return
    from contextlib import closing

    from ops.runtime import log as logs
    from ops.runtime.blobs import open_blobs
    from ops.settings import require
    from workers.amqp.publisher_thread import PublisherThread
    from workers.mail.pull.publish import MailIntake

    require(settings, "amqp_url")
    logs.configure(settings.log, "error", "import")  # the steps of connecting do not concern the person who waits
    with closing(PublisherThread(settings.amqp_url, "import")) as publisher:
        yield MailIntake(publisher, open_blobs(settings))


COMMANDS: tuple[click.Command, ...] = (import_mails,)
