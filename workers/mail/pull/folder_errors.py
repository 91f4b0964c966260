"""The folders of a mailbox that could not be read in a batch: they are recorded, and the others are read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from ops.runtime.db import Connection
from pipeline.store.mail import mailboxes, unreadable_folders
from schemas.mailbox import Mailbox

_log = structlog.get_logger()


@dataclass
class FolderErrors:
    """The folders that a batch could read, and those that it could not. `noted`: the errors recorded by earlier batches."""

    noted: Mapping[str, object] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # folder -> why
    read: set[str] = field(default_factory=set)

    @property
    def trouble(self) -> str | None:
        """Why no folder could be read, which points to the mailbox and not to a folder; None if one could."""
        return None if self.read else next(iter(self.failed.values()), None)

    def can_read(self, folder: str) -> bool:
        """Whether the folder has no error, as far as is known."""
        return folder not in self.failed and (folder in self.read or folder not in self.noted)

    def changed(self, listed: Collection[str]) -> bool:
        """Whether there is anything to `note`; never if no folder could be read."""
        return bool(self.read) and bool(self.failed or self._recovered() or self._gone(listed))

    def note(self, conn: Connection, mailbox: Mailbox, listed: Collection[str], now: datetime) -> None:
        """Records the errors, with one event for each folder that fails and one when it recovers. `listed`: all folders."""
        fresh, recovered = self.failed.keys() - self.noted.keys(), self._recovered()
        unreadable_folders.put(conn, mailbox.id, self.failed, now)
        unreadable_folders.drop(conn, mailbox.id, recovered | self._gone(listed))
        for folder in sorted(fresh):
            detail = f"{folder}: {self.failed[folder]} (other folders are read)"
            mailboxes.note(conn, mailbox.id, "mailbox_folder_unreadable", detail, now)
            _log.warning("folder_unreadable", mailbox=mailbox.name, folder=folder, error=self.failed[folder])
        for folder in sorted(recovered):
            mailboxes.note(conn, mailbox.id, "mailbox_folder_readable", f"{folder}: it can be read again", now)

    def _recovered(self) -> set[str]:
        return {folder for folder in self.noted if folder in self.read and folder not in self.failed}

    def _gone(self, listed: Collection[str]) -> set[str]:
        """Recorded folders that were deleted since."""
        return self.noted.keys() - set(listed) - self.failed.keys() - self.read
