"""The mark of a data folder into which a backup is being restored."""

from pathlib import Path
from typing import Final

from ops.errors import OpsError

MARK: Final = "restoring"


def check_restored(data: Path) -> None:
    """Raise `OpsError` for a folder whose restore did not end: what is in it is not the system that was backed up."""
    if (data / MARK).exists():
        raise OpsError(f"the restore into {data} did not end: remove the folder, and restore again")
