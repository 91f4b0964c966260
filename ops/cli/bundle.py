"""Commands that export a tenant's entries as a bundle, and verify one offline."""

# ruff: noqa: PLC0415 - commands import what they need when they run; verify-bundle must not need a database's driver

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, printable, progress, show_json

if TYPE_CHECKING:
    from pipeline.ledger.bundles.bundle_verify import Known, VerifiedBundle

INTACT, NOT_INTACT = 0, 1

_Result = TypeVar("_Result")

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LARGEST = 4 * 1024 * 1024  # bytes of a checkpoint or proof
_LISTED = 10  # chains whose unsealed entries are named one by one


@click.command()
@click.argument("tenant")
@click.option("--subject", help="Only this subject.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--json", "as_json", is_flag=True, help="On stdout, what was exported, as one line of JSON.")
@DATA
def export(tenant: str, subject: str | None, output: Path, as_json: bool, data: Path) -> int:
    """Write a tenant's entries to a file that anyone can verify.

    JSON Lines, with all content, so only you can read the file. If the tenant's log is published, its checkpoint and the proofs
    that the entries are in it come with them. An existing file is replaced when the new one is complete. Says what the last
    verification claimed of the tenant's ledger, and what is missing for more. Exit code 1: something that was recorded is
    missing from it.

    Example: waxseal export acme -o acme.jsonl && waxseal verify-bundle acme.jsonl
    """
    from ops.admin.verification import Subject, replacing, whole_ledger
    from ops.system.stack_file import settings_for

    if as_json and str(output) == "/dev/stdout":
        raise click.UsageError("--json writes to stdout: give another file with -o", click.get_current_context())
    lost: list[str] = []
    with (
        whole_ledger(settings_for(data, "database_url"), Subject(tenant, subject)) as ledger,
        progress("exporting", ledger.size()) as show,
        replacing(output) as out,
    ):
        count = ledger.export(out, show, lost.append)
        claim = ledger.claim(complete=not lost)
    if as_json:
        show_json({"tenant": tenant, "subject": subject, "entries": count, "lost": lost, **claim})
    else:
        for each in lost:
            click.echo(printable(f"missing: {each}"), err=True)
        click.echo(f"{counted(count, 'entry', 'entries')} in {output}", err=True)
        click.echo(printable(f"claim: {_claimed(claim)}"), err=True)
    return NOT_INTACT if lost else INTACT


def _claimed(claim: Mapping[str, Any]) -> str:
    checked = f" (checked at {claim['checked_at'][:16].replace('T', ' ')}Z)" if claim["checked_at"] else ""
    return f"{claim['claim'] or 'none yet'}{checked}" + (f"; {claim['missing']}" if claim["missing"] else "")


@click.command("verify-bundle")
@click.argument("file", type=_FILE)
@click.option("--vkey", "vkeys", multiple=True, help="A public key of the log, name+id+key; repeatable.")
@click.option("--checkpoint", "checkpoints", type=_FILE, multiple=True, help="A checkpoint of the log that was kept elsewhere.")
@click.option("--consistency", "proofs", type=_FILE, multiple=True, help="What `waxseal prove --consistency` has written.")
@JSON
def verify_bundle(file: Path, vkeys: Sequence[str], checkpoints: Sequence[Path], proofs: Sequence[Path], as_json: bool) -> int:
    """Check an exported file, offline.

    Needs no database and no settings. With --vkey the bundle must hold a checkpoint that the log's key signed. With
    --checkpoint the bundle's log must be shown to be of one history with that one. Says what the bundle shows, and what it
    cannot show. Exit code 0: all intact. 1: a fault, or nothing to check. 2: it could not be checked.

    Example: waxseal verify-bundle acme.jsonl --vkey ledger.example/acme+de2f71dd+ATtq… --checkpoint last-year.txt
    """
    from ops.cli.terminal.faults import fault_reporter
    from pipeline.errors import Unreadable
    from pipeline.ledger.bundles.bundle_verify import verify_bundle as check

    known = _known(vkeys, checkpoints, proofs)
    try:
        with file.open("rb") as stream, progress("verifying", file.stat().st_size) as show:
            found = check(stream, known, fault_reporter(as_json), show)
    except Unreadable as error:
        raise click.ClickException(str(error)) from error
    (_show_json if as_json else _show)(found, file)
    return INTACT if found.verified.verdict == "intact" else NOT_INTACT


def _known(vkeys: Sequence[str], checkpoints: Sequence[Path], proofs: Sequence[Path]) -> "Known":
    """What the options name. Raises `ClickException` for what is none."""
    from pipeline.errors import Unreadable
    from pipeline.ledger.bundles.bundle_verify import Known
    from pipeline.ledger.checkpoint import read_signed
    from pipeline.ledger.notes import read_vkey
    from pipeline.ledger.tlog_proof import read_consistency_proof

    try:
        keys = [read_vkey(each) for each in vkeys]
    except Unreadable as error:
        raise click.UsageError(f"--vkey: {error}", click.get_current_context()) from error
    return Known(
        keys,
        [_read(path, lambda raw: read_signed(raw, keys)[0]) for path in checkpoints],
        [_read(path, read_consistency_proof) for path in proofs],
    )


def _read(path: Path, read: Callable[[bytes], _Result]) -> _Result:
    from pipeline.errors import Unreadable

    with path.open("rb") as file:
        raw = file.read(_LARGEST)
    try:
        return read(raw)
    except Unreadable as error:
        raise click.ClickException(f"{path}: {error}") from error


def _show(found: "VerifiedBundle", file: Path) -> None:
    verified = found.verified
    if verified.verdict == "nothing":
        click.echo(f"nothing to check in {file}")
        return
    what = "intact" if not verified.faults else f"NOT intact, {counted(verified.faults, 'fault', 'faults')}"
    entries, chains = counted(verified.entries, "entry", "entries"), counted(verified.chains, "chain", "chains")
    click.echo(f"{what}: {entries} in {chains} in {file}")
    for each in found.shown:
        click.echo(printable(f"shown: {each.claim}: {each.detail}"))
    for unsealed in found.unsealed[:_LISTED]:
        span = f"{unsealed.first} to {unsealed.last}" if unsealed.first < unsealed.last else f"{unsealed.first}"
        click.echo(printable(f"not yet sealed: {unsealed.subject or 'chain'} entry {span} (chain {unsealed.chain})"))
    if len(found.unsealed) > _LISTED:
        click.echo(f"not yet sealed: the last entries of {len(found.unsealed) - _LISTED} more chains; --json names them")
    for each in found.not_shown:
        click.echo(printable(f"not shown: {each.claim}: {each.detail}"), err=True)


def _show_json(found: "VerifiedBundle", _file: Path) -> None:
    verified, checkpoint = found.verified, found.checkpoint
    counts = {"entries": verified.entries, "chains": verified.chains, "faults": verified.faults}
    sealed = None
    if checkpoint is not None:
        sealed = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}
        sealed["signed_by"] = list(found.signed_by)
    show_json(
        {
            "verdict": verified.verdict,
            **counts,
            "checkpoint": sealed,
            "not_sealed": [each._asdict() for each in found.unsealed],
            "shown": [each._asdict() for each in found.shown],
            "not_shown": [each._asdict() for each in found.not_shown],
            "not_checked": ["signature"] if checkpoint is not None and not found.signed_by else [],
        }
    )


COMMANDS: tuple[click.Command, ...] = (export, verify_bundle)
