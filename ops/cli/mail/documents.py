"""Commands on the documents of mails; part of the group `waxseal mail`."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_fields, show_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.documents import Mail
    from ops.settings import Settings


@click.command()
@click.argument("tenant")
@click.argument("id_", metavar="ID")
@click.option("--source", help="The mailbox or source that it came through, if it came through several.")
@click.option("--origin", help="What its sender called itself (CloudEvents source), if the timeline shows an origin.")
@click.option("--again", is_flag=True, help="Read the mail anew instead of showing what was read before.")
@JSON
@DATA
def show(tenant: str, id_: str, source: str | None, origin: str | None, again: bool, as_json: bool, data: Path) -> None:
    """Show the document of a mail: sender, subject, attachments, verdicts, and everything unusual.

    Example: waxseal mail show acme sha256:3f2a... --json
    """
    from ops.admin.documents import find_mail
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    settings = settings_for(data, "database_url")
    with open_engine(settings) as engine:
        found = find_mail(engine, settings, tenant, id_, source, origin)
        document = found.document
        if again or document is None:
            document = _made(found, engine, settings)
    if as_json:
        show_json({**found.event, "document": document})
    else:
        show_fields({**found.event, **_plain(document)}, as_json=False)


@click.command()
@click.option("--rebuild", is_flag=True, help="Have all of them made again.")
@click.option("--outdated", is_flag=True, help="Have those made again that an earlier version made.")
@JSON
@DATA
def documents(rebuild: bool, outdated: bool, as_json: bool, data: Path) -> None:
    """Count the documents of mails, or have them made again.

    The relays make them, one after the other; each old one stays until then.

    Example: waxseal mail documents --outdated
    """
    from ops.admin.documents import counted as count
    from ops.admin.documents import make_again
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    with open_engine(settings_for(data, "database_url")) as engine:
        found = count(engine)
        again = 0
        if rebuild or outdated:
            with progress("marking", found["outdated" if outdated else "made"]) as show:
                again = make_again(engine, outdated=outdated and not rebuild, show=show)
            found = count(engine)
    if as_json:
        show_json({**found, "made_again": again})
        return
    show_fields(found, as_json=False)
    if rebuild or outdated:
        click.echo(f"{counted(again, 'document', 'documents')} to be made again", err=True)


def _made(found: "Mail", engine: "Engine", settings: "Settings") -> dict[str, Any]:
    from contextlib import closing

    from ops.errors import OpsError
    from ops.runtime.blobs import open_blobs
    from pipeline.errors import BlobsAway
    from workers.documents.mail_parser import MailParser
    from workers.documents.maker import DocumentMaker

    with closing(DocumentMaker(engine, open_blobs(settings), MailParser(dns=settings.mail_dns))) as maker:
        try:
            return maker.make(found.due)
        except BlobsAway as error:
            raise OpsError(f"{error}: check WAXSEAL_BLOBS") from error


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The parts of a document that people look at first."""
    shown = {f"{name}": _addresses(document[name]) for name in ("from", "to", "cc", "reply_to") if document[name]}
    names = (
        "date",
        "message_id",
        "in_reply_to",
        "references",
        "automatic",
        "bounce",
        "spam",
        "authentication",
        "flags",
        "notes",
    )
    return {
        "about": document["subject"],
        **shown,
        **{name: document[name] for name in names if document[name]},
        "attachments": [f"{each['name']} ({each['content_type']}, {each['size']} bytes)" for each in document["attachments"]],
        "text": document["text"],
    }


def _addresses(found: list[dict[str, str]]) -> str:
    return ", ".join(f"{each['name']} <{each['address']}>" if each["name"] else each["address"] for each in found)


COMMANDS: tuple[click.Command, ...] = (show, documents)
