"""Which of a mailbox's folders could be read in a batch, and which not: those are noted, and in no other's way."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from ops.runtime.db import Connection
from pipeline.store.mail import mailboxes, unreadable_folders
from schemas.mailbox import Mailbox

_log = structlog.get_logger()


@dataclass
class Readable:
    """What a batch found out. `noted` is what is known from before."""

    noted: Mapping[str, object] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # folder -> why
    read: set[str] = field(default_factory=set)

    @property
    def trouble(self) -> str | None:
        """Why no folder could be read: then it is not the folders that are in trouble, as far as can be told."""
        return None if self.read else next(iter(self.failed.values()), None)

    def may(self, folder: str) -> bool:
        """Whether nothing is known against it."""
        return folder not in self.failed and (folder in self.read or folder not in self.noted)

    def news(self, listed: Collection[str]) -> bool:
        """Whether there is anything to `note`."""
        return bool(self.read) and bool(self.failed or self._healed() or self._gone(listed))

    def note(self, conn: Connection, mailbox: Mailbox, listed: Collection[str], now: datetime) -> None:
        """Remembers it; operators hear once of each folder, and once more when it can be read. `listed`: what there is."""
        fresh, healed = self.failed.keys() - self.noted.keys(), self._healed()
        unreadable_folders.put(conn, mailbox.id, self.failed, now)
        unreadable_folders.drop(conn, mailbox.id, healed | self._gone(listed))
        for folder in sorted(fresh):
            told = f"{folder}: {self.failed[folder]} (other folders are read)"
            mailboxes.note(conn, mailbox.id, "mailbox_folder_unreadable", told, now)
            _log.warning("folder_unreadable", mailbox=mailbox.name, folder=folder, error=self.failed[folder])
        for folder in sorted(healed):
            mailboxes.note(conn, mailbox.id, "mailbox_folder_readable", f"{folder}: it can be read again", now)

    def _healed(self) -> set[str]:
        return {folder for folder in self.noted if folder in self.read and folder not in self.failed}

    def _gone(self, listed: Collection[str]) -> set[str]:
        """What was deleted since, where every folder is read, is missed by nobody."""
        return self.noted.keys() - set(listed) - self.failed.keys() - self.read
