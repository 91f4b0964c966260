"""Commands that verify and export the ledger."""

# ruff: noqa: PLC0415 - commands import what they need when they run; verify-bundle must not need a database's driver

import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, printable, progress, show_json

if TYPE_CHECKING:
    from schemas.fault import Fault, Verified

INTACT, NOT_INTACT = 0, 1

_VKEY = re.compile(r"[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*")


@click.command()
@click.option("--tenant", help="Only this tenant.")
@click.option("--subject", help="Only this subject of the tenant.")
@JSON
@DATA
def verify(tenant: str | None, subject: str | None, as_json: bool, data: Path) -> int:
    """Check that the ledger is as it was written.

    Checks every hash, link, number, column, content and head, and names every fault. Exit code 0: all intact. 1: a fault, or
    nothing to check. 2: it could not be checked. A check of the whole ledger is recorded, for the metrics.

    Example: waxseal verify --tenant acme
    """
    from ops.admin.verification import Subject, note, whole_ledger
    from ops.system.stack_file import settings_for

    if subject is not None and tenant is None:
        raise click.UsageError("--subject needs --tenant", click.get_current_context())
    settings, began = settings_for(data, "database_url"), datetime.now(UTC)
    with whole_ledger(settings, Subject(tenant, subject)) as ledger:
        with progress("verifying", ledger.size()) as show:
            verified = ledger.verify(_reporter(as_json), show)
        skipped = [] if ledger.keys is not None else ["fingerprint", "chain key"]
    if tenant is None and verified.verdict != "nothing" and (why := note(settings, verified, began)):
        click.echo(f"The result is not recorded, and metrics will not show it: {why}", err=True)
    if skipped and not as_json:
        click.echo("Not checked, for want of WAXSEAL_KEYS: fingerprints and the keys of chains.", err=True)
    return _conclude(verified, as_json, skipped, "in the ledger")


@click.command()
@click.argument("tenant")
@click.option("--subject", help="Only this subject.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@DATA
def export(tenant: str, subject: str | None, output: Path, data: Path) -> None:
    """Write a tenant's entries to a file that anyone can verify.

    JSON Lines, with all content, so only you can read the file. An existing file is replaced when the new one is complete.

    Example: waxseal export acme -o acme.jsonl && waxseal verify-bundle acme.jsonl
    """
    from ops.admin.verification import Subject, replacing, whole_ledger
    from ops.system.stack_file import settings_for

    with (
        whole_ledger(settings_for(data, "database_url"), Subject(tenant, subject)) as ledger,
        progress("exporting", ledger.size()) as show,
        replacing(output) as out,
    ):
        lost: list[str] = []
        count = ledger.export(out, show, lost.append)
    for each in lost:
        click.echo(printable(f"without content: {each}"), err=True)
    click.echo(f"{counted(count, 'entry', 'entries')} in {output}", err=True)


@click.command("verify-bundle")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--vkey", help="The log's public key, name+id+key: the bundle must hold a checkpoint that it signed.")
@JSON
def verify_bundle(file: Path, vkey: str | None, as_json: bool) -> int:
    """Check an exported file, offline.

    Needs no database and no settings. Exit code 0: all intact. 1: a fault, or nothing to check. 2: it could not be checked.

    Example: waxseal verify-bundle acme.jsonl
    """
    from pipeline.errors import Unreadable
    from pipeline.ledger.bundle import verify_bundle as check

    if vkey is not None and not _VKEY.fullmatch(vkey):
        raise click.UsageError("--vkey is not a verifier key: name+8 hexadecimal digits+base64", click.get_current_context())
    try:
        with file.open("rb") as stream, progress("verifying", file.stat().st_size) as show:
            verified = check(stream, vkey, _reporter(as_json), show)
    except Unreadable as error:
        raise click.ClickException(str(error)) from error
    code = _conclude(verified, as_json, [], f"in {file}")
    if code == INTACT and not as_json:
        click.echo("It holds no checkpoint, so nothing shows whether something was cut off at its end.", err=True)
    return code


def _reporter(as_json: bool) -> "Callable[[Fault], None]":
    def report(fault: "Fault") -> None:
        if as_json:
            show_json(asdict(fault))
            return
        where = "/".join(part for part in (fault.tenant, fault.subject) if part is not None)
        seq = "" if fault.seq is None else f" entry {fault.seq}"
        chain = "" if fault.chain is None else f" (chain {fault.chain})"
        click.echo(printable(f"{fault.kind}: {where}{seq}{chain}: {fault.detail}"))

    return report


def _conclude(verified: "Verified", as_json: bool, skipped: list[str], where: str) -> int:
    if as_json:
        counts = {"entries": verified.entries, "chains": verified.chains, "faults": verified.faults}
        show_json({"verdict": verified.verdict, **counts, "not_checked": skipped})
    elif verified.verdict == "nothing":
        click.echo(f"nothing to check {where}")
    else:
        what = "intact" if not verified.faults else f"NOT intact, {counted(verified.faults, 'fault', 'faults')}"
        entries, chains = counted(verified.entries, "entry", "entries"), counted(verified.chains, "chain", "chains")
        click.echo(f"{what}: {entries} in {chains} {where}")
    return INTACT if verified.verdict == "intact" else NOT_INTACT


COMMANDS: tuple[click.Command, ...] = (verify, export, verify_bundle)
