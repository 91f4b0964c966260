"""Verifies a backup where it lies, without keys: its files, the database in it, and every blob that is listed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.admin.backup import base_backup, blob_copies
from ops.admin.backup.backup_manifest import BLOBS, DATABASE, Manifest, part_of
from ops.errors import OpsError


def faults(folder: Path, manifest: Manifest, show: Callable[[int], None]) -> Iterator[str]:
    """Everything that is wrong with it. The database is unpacked beside the backup for that, and removed again."""
    damaged = list(part_faults(folder, manifest))
    yield from damaged
    yield from (f"when it was taken: {each}" for each in manifest.faults)
    if damaged:
        return  # what they hold cannot be relied on
    with TemporaryDirectory(prefix=".verifying-", dir=folder.absolute().parent) as scratch:
        data = Path(scratch) / "data"
        try:
            base_backup.unpack(folder / DATABASE, data)
            base_backup.verify(manifest.postgres, data)
        except OpsError as error:
            yield str(error)
    yield from blob_copies.faults(folder / BLOBS, show)


def part_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """The files that are missing, or not as the manifest has them."""
    for name, part in manifest.parts.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif part_of(path) != part:
            yield f"{name} is not as it was written: its size or SHA-256 differs"
