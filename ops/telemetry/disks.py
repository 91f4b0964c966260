"""The figures of the disks that a process writes to."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ops.telemetry import table


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes on a disk, as `df` counts them: what is reserved for root is neither free nor part of the size."""

    free: int
    size: int


def room(folder: Path) -> Room:
    """The disk that `folder` is on, or would be if it does not exist yet. Raises OSError."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Room(usage.free, usage.used + usage.free)


def show_disk(name: str, folder: Path | None) -> None:
    """Show the disk that `folder` is on; None is no disk. Raises OSError."""
    if folder is None:
        return
    found = room(folder)
    table.DISK_FREE.labels(name).set(found.free)
    table.DISK_SIZE.labels(name).set(found.size)
