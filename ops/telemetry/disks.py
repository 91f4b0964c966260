"""The figures of the disks that a process writes to."""

import shutil
from pathlib import Path

from ops.telemetry import table


def show_disk(name: str, folder: Path | None) -> None:
    """Show the disk that `folder` is on, or would be if it does not exist yet; None is no disk. Raises OSError."""
    if folder is None:
        return
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    table.DISK_FREE.labels(name).set(usage.free)
    table.DISK_SIZE.labels(name).set(usage.total)
