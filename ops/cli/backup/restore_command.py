"""`waxseal restore`: a backup into a new data folder."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.confirm import ActTerms, confirmed_act
from ops.cli.terminal.output import counted, printable, progress
from ops.cli.terminal.time_range import Moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ops.admin.backup.restore_backup import Planned, Restored

INTACT, NOT_INTACT = 0, 1


class _Until(Moment):
    """A time, as other commands take it, or the name of a restore point; `latest` is one."""

    name = "time|point|latest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it: what is no time is a name."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            return value


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The new data folder: empty, or not there yet.")
@click.option(
    "--until",
    type=_Until(),
    help="Replay the archive of the write-ahead log until a time, as 2026-01-31T12:00:00Z or 2h for two hours ago, until the"
    " restore point of that name, or `latest`.  [default: restore the backup as it was taken]",
)
@click.option(
    "--archive",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where that archive is.  [default: where the backup says]",
)
@click.option("--dry-run", is_flag=True, help="Only say what it would do, as without --yes.")
@confirmed_act
def restore(
    folder: Path, data: Path, until: "datetime | str | None", archive: Path | None, dry_run: bool, terms: ActTerms
) -> int:
    """Restore a backup into a new data folder.

    Checks the backup's files, unpacks the database and replays its write-ahead log on a private PostgreSQL of the same
    version, copies the blobs, verifies the ledger, and begins a new origin of each tenant's log, because the backup lacks what
    was published after it (log.md). Then `waxseal up --data` resumes. Needs the keys that the backup names, in
    WAXSEAL_KEYS_FILE, which is copied into the folder, or in WAXSEAL_KEYS; and, where the published logs outlived the system,
    WAXSEAL_LOG_FILES. Stop the old system first. Without --yes it only says what it would do, and with --until also which
    times can be restored.

    Exit code 0: restored and intact, or it can be done. 1: restored, and the ledger has faults. 2: not done.

    \b
    Example: waxseal restore /backup/monday --data .waxseal-restored --yes
             waxseal restore /backup/monday --data .waxseal-restored --until 2026-01-31T12:00:00Z --yes
    """  # noqa: D301 - \b is click's own mark
    from ops.admin.backup import restore_backup
    from ops.admin.backup.replaying import Target
    from ops.cli.terminal.faults import fault_reporter
    from ops.settings import load_settings

    if archive is not None and until is None:
        raise click.UsageError("--archive is for --until", click.get_current_context())
    target = None if until is None else Target(until, archive)
    planned = restore_backup.plan(load_settings(), folder, data, target)
    for line in _planned(planned):
        click.echo(printable(line))
    if dry_run or not terms.yes:
        click.echo("Nothing was done. Add --yes to do it.", err=True)
        return INTACT
    with progress("copying blobs", planned.manifest.blobs) as show:
        done = restore_backup.restore(planned, terms.who, fault_reporter(False), lambda line: click.echo(line, err=True), show)
    for line in _done(done, data):
        click.echo(printable(line))
    return NOT_INTACT if done.verified.faults else INTACT


def _planned(planned: "Planned") -> "Iterator[str]":
    manifest, settings = planned.manifest, planned.settings
    yield f"backup    of {manifest.began[:19]}Z, by waxseal {manifest.waxseal}, schema {manifest.schema}"
    yield f"database  PostgreSQL {manifest.postgres}, write-ahead log {manifest.wal['start']} to {manifest.wal['end']}"
    if (replayed := planned.replayed) is not None:
        to = "no transaction since" if replayed.latest is None else f"{replayed.latest:%Y-%m-%dT%H:%M:%S.%fZ}"
        yield f"archive   {replayed.folder}: from {replayed.earliest:%Y-%m-%dT%H:%M:%S.%fZ} to {to}"
        yield f"until     {replayed.shown}"
    yield f"blobs     {manifest.blobs}, {manifest.blob_bytes / 2**20:.1f} MiB, to {settings.blobs}"
    yield f"keys      {', '.join(manifest.keys) or 'as given'}: there"
    yield f"logs      {settings.log_origin}/TENANT/rN for each tenant, after what is published at {settings.log_files}"
    if planned.unpacks_logs:
        yield "          as the backup has it: if newer files outlived the system, set WAXSEAL_LOG_FILES to where they are"
    yield f"into      {planned.data}"


def _done(done: "Restored", data: Path) -> "Iterator[str]":
    if done.last is not None:
        yield f"the last transaction that was replayed is of {done.last.replace(' ', 'T')}Z"
    for log in done.logs:
        yield f"{log.origin} follows {log.former.origin}, which was published up to size {log.former.size}"
    what = f"NOT intact, {counted(done.verified.faults, 'fault', 'faults')}" if done.verified.faults else "intact"
    entries = counted(done.verified.entries, "entry", "entries")
    yield f"{what}: {entries} in {counted(done.verified.chains, 'chain', 'chains')}; `waxseal up --data {data}` resumes"


COMMANDS: tuple[click.Command, ...] = (restore,)
