"""`waxseal backup`: takes a backup, or verifies one."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, printable, progress, show_json

if TYPE_CHECKING:
    from ops.admin.backup.backup_manifest import Manifest

SOUND, NOT_SOUND = 0, 1

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.command()
@FOLDER
@click.option(
    "--previous",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A backup on the same disk: blobs that it has are linked to it, not copied again.",
)
@click.option("--verify", "only_verify", is_flag=True, help="Verify the backup in FOLDER; take none.")
@JSON
@DATA
def backup(folder: Path, previous: Path | None, only_verify: bool, as_json: bool, data: Path) -> int:
    """Take a backup of the running system into a new folder.

    Holds the database (pg_basebackup, compressed, with its WAL), then the blobs, the broker's exchanges, queues and bindings,
    and the published logs if they are in a folder. Not in it: messages that wait in the broker, and the keys: manifest.json
    names those that a restore needs, so keep them elsewhere. The login must be the server's superuser, or one with
    REPLICATION that is a member of pg_read_all_data. Needs PostgreSQL's programs, of the server's version. FOLDER must not
    exist; it gets its name when all is on disk.

    Exit code 0: done, or sound. 1: a blob was missing or altered, or the backup that was verified is not sound. 2: not done.

    \b
    Example: waxseal backup /backup/monday
             waxseal backup --verify /backup/monday
    """  # noqa: D301 - \b is click's own mark
    if only_verify:
        if previous is not None:
            raise click.UsageError("--previous is for taking a backup", click.get_current_context())
        return _verify(folder, as_json)
    return _take(folder, previous, as_json, data)


def _take(folder: Path, previous: Path | None, as_json: bool, data: Path) -> int:
    from ops.admin.backup.take_backup import Wanted, take
    from ops.system.stack_file import settings_for
    from workers.amqp.definitions import definitions
    from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY

    settings = settings_for(data, "database_url")
    wanted = Wanted(folder, previous, definitions(DELIVER_TOPOLOGY))
    with progress("copying blobs", 0) as show:
        manifest, copied = take(settings, wanted, lambda line: click.echo(f"{line} …", err=True), show)
    _tell(folder, manifest, copied.linked, as_json)
    return NOT_SOUND if manifest.faults else SOUND


def _tell(folder: Path, manifest: "Manifest", linked: int, as_json: bool) -> None:
    size = sum(part["bytes"] for part in manifest.parts.values())
    if as_json:
        show_json({"folder": str(folder), "bytes": size, "blobs": manifest.blobs, "blob_bytes": manifest.blob_bytes})
    else:
        found = counted(manifest.blobs, "blob", "blobs")
        also = f", {linked} of them linked" if linked else ""
        click.echo(f"{folder}: {size / 2**20:.1f} MiB, and {found} of {manifest.blob_bytes / 2**20:.1f} MiB{also}")
        keys = ", ".join(manifest.keys) or "unknown here: set WAXSEAL_KEYS to have them named"
        click.echo(f"keys that it needs, and that are not in it: {keys}")
    for fault in manifest.faults:
        click.echo(printable(fault), err=True)


def _verify(folder: Path, as_json: bool) -> int:
    from ops.admin.backup import backup_manifest, verify_backup

    manifest = backup_manifest.read(folder)
    found = 0
    with progress("verifying blobs", manifest.blobs) as show:
        for fault in verify_backup.faults(folder, manifest, show):
            found += 1
            if as_json:
                show_json({"fault": fault})
            else:
                click.echo(printable(fault))
    if as_json:
        show_json({"verdict": "NOT sound" if found else "sound", "faults": found, "blobs": manifest.blobs})
    else:
        what = f"NOT sound, {counted(found, 'fault', 'faults')}" if found else "sound"
        click.echo(f"{what}: {folder}, of {manifest.began[:19]}Z, with {counted(manifest.blobs, 'blob', 'blobs')}")
    return NOT_SOUND if found else SOUND


COMMANDS: tuple[click.Command, ...] = (backup,)
