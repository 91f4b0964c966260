"""The command that gives proofs from a tenant's published log."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path

import click

from ops.cli.terminal.options import DATA

PROVEN, NOT_YET = 0, 1


@click.command()
@click.argument("tenant")
@click.argument("subject", required=False)
@click.option("--seq", type=click.IntRange(0), help="This entry of the subject; otherwise the last one in the published log.")
@click.option("--complete", is_flag=True, help="Where the subject's entries ended, as of the log's newest heads entry.")
@click.option("--consistency", nargs=2, type=click.IntRange(1), metavar="OLD NEW", help="That a log continues an older one.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; otherwise stdout.")
@DATA
def prove(
    tenant: str,
    subject: str | None,
    seq: int | None,
    complete: bool,
    consistency: tuple[int, int] | None,
    output: Path | None,
    data: Path,
) -> int:
    """Prove that an entry is in a tenant's published log, that it is a subject's last, or that the log was only continued.

    Of an entry: a C2SP tlog-proof, with the entry's envelope as its extra data. With --complete: one of a heads entry, with the
    line of a bundle that shows the subject's end. With --consistency: the sizes of two checkpoints; the body of a request to a
    C2SP witness, which `waxseal verify-bundle --consistency` takes. Exit code 1: it is not published yet.

    Example: waxseal prove acme order-123 -o order-123.tlog-proof
    """
    from ops.admin import proofs
    from ops.admin.read_session import open_engine, snapshot
    from ops.admin.verification import replacing
    from ops.errors import NotPublished
    from ops.system.stack_file import settings_for

    of_an_entry = subject is not None and consistency is None
    of_a_log = subject is None and consistency is not None and not complete
    if not (of_an_entry or of_a_log) or (seq is not None and (of_a_log or complete)):
        wanted = "give SUBJECT, perhaps with --seq or --complete, or --consistency OLD NEW"
        raise click.UsageError(wanted, click.get_current_context())
    settings = settings_for(data, "database_url")
    try:
        with open_engine(settings) as engine, snapshot(engine) as conn:
            if consistency is not None:
                text = proofs.prove_consistency(conn, settings, tenant, *consistency).text
            elif complete:
                text = proofs.prove_complete(conn, settings, tenant, str(subject)).text
            else:
                text = proofs.prove(conn, settings, tenant, str(subject), seq).text
    except NotPublished as error:
        click.echo(f"Not yet: {error}", err=True)
        return NOT_YET
    if output is None:
        click.echo(text, nl=False)
    else:
        with replacing(output) as out:
            out.write(text.encode())
    return PROVEN


COMMANDS: tuple[click.Command, ...] = (prove,)
