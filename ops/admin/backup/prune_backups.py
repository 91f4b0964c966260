"""Removes backups that are no longer kept, and of the archives what only they needed."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import rmtree

from ops.admin.backup import backup_manifest
from ops.admin.backup.archived_log import archived, position, segment_name
from ops.admin.backup.backup_manifest import FILE, Manifest
from ops.admin.backup.base_backup import run_program
from ops.errors import OpsError
from ops.runtime.durable_files import flush_folder
from ops.servers.wal_archive import SUFFIX


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup in the folder."""

    folder: Path
    manifest: Manifest

    @property
    def began(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.manifest.began)


@dataclass(frozen=True, slots=True)
class Surplus:
    """What of an archive no backup needs: all before the segment `first`, `count` segments of `size` bytes there."""

    archive: Path
    postgres: str
    first: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Pruning:
    """What would be removed; `unused`: archives that no backup needs any more, which a server may still write."""

    removed: Sequence[Kept]
    kept: Sequence[Kept]
    surplus: Sequence[Surplus]
    unused: Sequence[Path]


def plan(root: Path, most: int | None, older_than: datetime | None) -> Pruning:
    """What goes if the newest `most` backups in `root` are kept, or those since then, and always the newest.

    Raises `OpsError` for a folder without backups, and for a damaged manifest: what that backup needs is not known.
    """
    found = sorted(_backups(root), key=lambda each: each.began)
    if not found:
        raise OpsError(f"there is no backup in {root}: name the folder that has them, each in a folder of its own")
    gone = [
        each
        for left, each in zip(reversed(range(len(found))), found, strict=True)
        if left and ((most is not None and left >= most) or (older_than is not None and each.began < older_than))
    ]
    kept = [each for each in found if each not in gone]
    archives, needed = _by_archive(found), _by_archive(kept)
    surplus = [_surplus(archive, needing) for archive, needing in needed.items()]
    unused = [archive for archive in archives if archive not in needed and archive.is_dir()]
    return Pruning(gone, kept, [each for each in surplus if each.count], unused)


def prune(planned: Pruning, say: Callable[[str], None]) -> None:
    """Remove it: first the backups, so that no backup is left whose write-ahead log is gone. Raises `OpsError`."""
    for each in planned.removed:
        say(f"removing {each.folder}")
        (each.folder / FILE).unlink()  # without it, it is no backup
        flush_folder(each.folder)
        rmtree(each.folder)
        flush_folder(each.folder.parent)
    for surplus in planned.surplus:
        say(f"removing what is before {surplus.first} from {surplus.archive}")
        run_program(surplus.postgres, "pg_archivecleanup", ["-x", SUFFIX, str(surplus.archive), surplus.first])


def _backups(root: Path) -> Iterator[Kept]:
    try:
        folders = sorted(each for each in root.iterdir() if (each / FILE).exists())
    except OSError as error:
        raise OpsError(f"{root}: {error.strerror}: name the folder that has the backups") from error
    for folder in folders:
        yield Kept(folder, backup_manifest.read(folder))


def _by_archive(backups: Sequence[Kept]) -> dict[Path, list[Manifest]]:
    found = defaultdict(list)
    for each in backups:
        if place := each.manifest.wal.get("archive"):
            found[Path(place)].append(each.manifest)
    return found


def _surplus(archive: Path, needing: Sequence[Manifest]) -> Surplus:
    """What is before the first segment that one of these backups needs. Timelines do not matter: numbers go on over them."""
    oldest = min(needing, key=lambda each: position(each.wal["start"]))
    size = oldest.wal["segment_bytes"]
    first = segment_name(oldest.wal["timeline"], position(oldest.wal["start"]) // size, size)
    before = [bytes_ for name, bytes_ in archived(archive) if name[8:] < first[8:]] if archive.is_dir() else []
    return Surplus(archive, oldest.postgres, first, len(before), sum(before))
