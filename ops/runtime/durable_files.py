"""Files and folders that survive a power failure: their contents and their names are on disk when a function returns."""

import errno
import os
from pathlib import Path
from typing import Final

#: The folder may be entered but not read, or its file system cannot flush one folder.
_NOT_BY_ITSELF: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP})


def flush(path: Path) -> None:
    """Flush one file, or the names in one folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk; where the system does not allow that for this folder, flush everything."""
    try:
        flush(folder)
    except OSError as error:
        if error.errno not in _NOT_BY_ITSELF:
            raise
        os.sync()


def replace_durably(fresh: Path, path: Path) -> None:
    """Rename a file, or a folder whose contents are on disk, to `path`: after a power failure `path` is the old or the new."""
    flush(fresh)
    fresh.replace(path)
    flush_folder(path.parent)


def make_folders(folder: Path, mode: int = 0o777) -> None:
    """Make a folder unless it exists, with `mode`, and the missing ones above it; all of their names are on disk then."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for each in missing:
        flush_folder(each.parent)
