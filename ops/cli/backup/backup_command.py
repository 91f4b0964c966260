"""`waxseal backup`: takes a backup, or verifies one; marks a restore point; removes old backups."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.confirm import ActTerms, confirmed_act, single_act
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, printable, progress, show_json
from ops.cli.terminal.time_range import Moment

if TYPE_CHECKING:
    from datetime import datetime

    from ops.admin.backup.backup_manifest import Manifest

SOUND, NOT_SOUND = 0, 1

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


class _BackupGroup(PlainGroup):
    """Takes a backup unless another of its commands is named: a folder of such a name is written ./prune."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the command before its arguments."""
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named or not args else ["take", *args])


@click.group(cls=_BackupGroup, subcommand_metavar="FOLDER | COMMAND [ARGS]...")
def backup() -> None:
    """Take a backup into FOLDER, or manage backups.

    \b
    Example: waxseal backup /backup/monday
             waxseal backup prune /backup --keep 7
    """  # noqa: D301 - \b is click's own mark


@backup.command()
@FOLDER
@click.option(
    "--previous",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A backup on the same disk: blobs that it has are linked to it, not copied again.",
)
@click.option("--verify", "only_verify", is_flag=True, help="Verify the backup in FOLDER; take none.")
@JSON
@DATA
def take(folder: Path, previous: Path | None, only_verify: bool, as_json: bool, data: Path) -> int:
    """Take a backup of the running system into a new folder; `take` may be left out.

    Holds the database (pg_basebackup, compressed, with its WAL), then the blobs, the broker's exchanges, queues and bindings,
    and the published logs if they are in a folder. Not in it: messages that wait in the broker, and the keys: manifest.json
    names those that a restore needs, so keep them elsewhere. The login must be the server's superuser, or one with
    REPLICATION that is a member of pg_read_all_data. Needs PostgreSQL's programs, of the server's version. FOLDER must not
    exist; it gets its name when all is on disk.

    Exit code 0: done, or sound. 1: a blob was missing or altered, or the backup that was verified is not sound. 2: not done.

    \b
    Example: waxseal backup take /backup/monday
             waxseal backup --verify /backup/monday
    """  # noqa: D301 - \b is click's own mark
    if only_verify:
        if previous is not None:
            raise click.UsageError("--previous is for taking a backup", click.get_current_context())
        return _verify(folder, as_json)
    return _take(folder, previous, as_json, data)


def _take(folder: Path, previous: Path | None, as_json: bool, data: Path) -> int:
    from ops.admin.backup import take_backup
    from ops.system.stack_file import settings_for
    from workers.amqp.definitions import definitions
    from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY

    settings = settings_for(data, "database_url")
    wanted = take_backup.Wanted(folder, previous, definitions(DELIVER_TOPOLOGY))
    with progress("copying blobs", 0) as show:
        manifest, copied = take_backup.take(settings, wanted, lambda line: click.echo(f"{line} …", err=True), show)
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
        archive = manifest.wal["archive"] or "there is none, so it restores the moment at which it was taken"
        click.echo(f"archive of the write-ahead log: {archive}")
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


@backup.command()
@click.argument("name")
@single_act
@DATA
def point(name: str, terms: ActTerms, data: Path) -> None:
    """Mark this moment in the write-ahead log as a restore point, for `waxseal restore --until NAME`.

    Needs the server's superuser, or a login that may execute pg_create_restore_point. Of two of the same name the first after
    a backup counts.

    Example: waxseal backup point before-the-import
    """
    from ops.admin.backup.restore_points import mark
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    with open_engine(settings_for(data, "database_url")) as engine:
        at = mark(engine, name, terms.who)
    if terms.as_json:
        show_json({"name": name, "position": at})
    else:
        click.echo(f"{name} is at {at}; it can be restored when that is archived, within a minute or two")


@backup.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--keep", type=click.IntRange(min=1), help="Keep this many, the newest.")
@click.option("--older-than", type=Moment(), help="Remove those that began before: RFC 3339, or 30d for thirty days ago.")
@confirmed_act
def prune(folder: Path, keep: int | None, older_than: "datetime | None", terms: ActTerms) -> None:
    """Remove old backups in FOLDER, and what only they needed of the archives of the write-ahead log.

    The newest backup is always kept. A backup that is elsewhere does not count: the archive may lose what it needs for
    `restore --until`. Without --yes it only says what it would do.

    Example: waxseal backup prune /backup --keep 7 --yes
    """
    from ops.admin.backup import prune_backups

    if keep is None and older_than is None:
        raise click.UsageError("say what to remove: --keep 7 or --older-than 30d", click.get_current_context())
    planned = prune_backups.plan(folder, keep, older_than)
    for each in planned.removed:
        click.echo(f"remove {each.folder}, of {each.began:%Y-%m-%dT%H:%M:%SZ}")
    for surplus in planned.surplus:
        found = counted(surplus.count, "file", "files")
        click.echo(f"remove {found}, {surplus.size / 2**20:.1f} MiB, before {surplus.first} from {surplus.archive}")
    for archive in planned.unused:
        click.echo(f"no backup needs {archive} any more: delete it if no server writes there")
    kept = counted(len(planned.kept), "backup", "backups")
    if not terms.yes:
        click.echo(f"Nothing was done; {kept} would be kept. Add --yes to do it.", err=True)
        return
    prune_backups.prune(planned, lambda line: click.echo(line, err=True))
    click.echo(f"{kept} kept, the oldest of {planned.kept[0].began:%Y-%m-%dT%H:%M:%SZ}")


COMMANDS: tuple[click.Command, ...] = (backup,)
