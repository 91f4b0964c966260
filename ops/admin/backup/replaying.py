"""What of an archive a restore replays: until a time, a restore point, or all of it; and whether that can be done."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ops.admin.backup import archived_log
from ops.admin.backup.archived_log import Following, segment_name
from ops.admin.backup.backup_manifest import Manifest
from ops.errors import OpsError
from ops.servers.accounts import Account, can_enter
from ops.servers.wal_archive import recovering

LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Target:
    """Until when: a time, the name of a restore point, or `LATEST`. `archive`: None for the one that the backup names."""

    until: datetime | str
    archive: Path | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """An archive that can be replayed to what is wanted: from `earliest` to `latest`, None if nothing came after the backup."""

    folder: Path
    earliest: datetime
    latest: datetime | None
    shown: str
    configuration: str


def replayable(manifest: Manifest, target: Target) -> Replayed:
    """Check that it can be replayed until then. Raises `OpsError` that says why it cannot."""
    place = target.archive or manifest.wal.get("archive")
    if not place:
        raise OpsError(
            "--until needs an archive of the write-ahead log, and the server had none when the backup was taken: restore the"
            " last backup before that time, have what was recorded since sent again, and set WAXSEAL_WAL_ARCHIVE from now on"
        )
    folder = Path(place).absolute()
    found = archived_log.following(folder, manifest.postgres, manifest.wal)
    latest, until = found.latest(), target.until
    if isinstance(until, datetime):
        wanted = _time(found, until, latest)
    elif until == LATEST:
        wanted = {}
        if found.missing is not None:
            raise OpsError(f"{_gap(found)}: restore until {_shown(latest)} at the latest, or use a later backup")
    else:
        wanted = {"recovery_target_name": until}
        if not found.has_point(until):
            raise OpsError(f"there is no restore point {until!r} after the backup in {folder}: it has {_span(found, latest)}")
    shown = until if isinstance(until, str) else until.isoformat()
    return Replayed(folder, found.ended, latest, shown, recovering(folder, wanted))


def check_readable(replayed: Replayed, account: Account | None) -> None:
    """Raise `OpsError` unless the account that runs PostgreSQL can read the archive."""
    if not can_enter(account, replayed.folder):
        who = account.name if account else "you"
        raise OpsError(f"{replayed.folder} cannot be entered by {who}, who runs PostgreSQL: allow that (chown -R {who})")


def _time(found: Following, until: datetime, latest: datetime | None) -> dict[str, str]:
    if until < found.ended:
        raise OpsError(f"the backup ended at {_shown(found.ended)}, after {_shown(until)}: use an earlier backup")
    if latest is None or until >= latest:
        why = f"{_gap(found)}, after " if found.missing else "the archive ends with "
        last = f"{why}a transaction of {_shown(latest)}" if latest else f"{why}the backup"
        instead = "use a later backup" if found.missing else "restore until latest, which has all that there is"
        raise OpsError(f"it is not known what was at {_shown(until)}: {last}; {instead}")
    return {"recovery_target_time": until.isoformat()}


def _gap(found: Following) -> str:
    last = segment_name(found.timeline, found.numbers[-1], found.segment_bytes)
    return f"there is a gap in {found.folder}: {found.missing} is missing after {last}"


def _span(found: Following, latest: datetime | None) -> str:
    return f"{_shown(found.ended)} to {_shown(latest)}" if latest else "nothing after the backup"


def _shown(moment: datetime | None) -> str:
    return "the end of the backup" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
