"""Imports mails from files by the route of pulled mails: durable in the broker, then recorded as items, then the next batch.

The recorded items are an import's only progress mark. It may be killed anywhere and started again: mails that are recorded are
read and skipped, and mails that were published but not recorded are published again, which the ledger drops as duplicates.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ops.admin.mail_files import FoundMail, MailFile, Quoting, read_mails
from ops.runtime.db import Engine, transaction
from pipeline.dedupe import fingerprint
from pipeline.mail.event_attributes import event_id
from pipeline.store.ledger import entries as ledger_entries
from pipeline.store.mail import items as mail_items
from schemas.mailbox import Mailbox, RawMail
from workers.mail.pull.publish import MailIntake

BATCH: Final = 200  # mails
BATCH_BYTES: Final = 8 * 1024 * 1024
FOLDER: Final = "import"  # the folder under which imported mails are recorded; it exists on no server
MOST_FAULTS: Final = 100  # faults that are reported


@dataclass(slots=True)
class Imported:
    """The result of an import: mails found, how many were new or already present, and what could not be read."""

    found: int = 0
    new: int = 0
    held: int = 0  # already present
    bytes: int = 0  # of the new mails
    files: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """Count a mail or file that could not be read."""
        self.failed += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(why)


class Importer:
    """Imports into one mailbox. Holds one batch in memory, or one mail if that is larger."""

    def __init__(self, engine: Engine, mailbox: Mailbox, intake: MailIntake | None, key: bytes | None = None) -> None:
        """Without `intake` mails are only counted, not imported.

        With `key`, the tenant's, mails that the mailbox's own pulls have brought into the ledger are recognised.
        """
        self._engine = engine
        self._mailbox = mailbox
        self._intake = intake
        self._key = key
        self._counted: set[int] = set()  # digests of mails that were only counted, to recognise repeats

    def run(self, files: Iterable[MailFile], quoting: Quoting, *, crlf: bool, show: Callable[[int], None]) -> Imported:
        """Import all files; `show` is called with the bytes processed so far.

        An unreadable file, or a mail that is too large, is counted and does not keep the others from being imported.
        Raises `Untaken` when the broker or the blob store stays away.
        """
        imported = Imported()
        done = 0
        for batch in _batched(_mails(files, quoting, imported, crlf=crlf)):
            self._take(batch, imported)
            done = batch[-1][1]
            show(done)
        return imported

    def _take(self, batch: "Sequence[_Placed]", imported: Imported) -> None:
        mails = {event_id(mail.raw or b""): mail for mail, _ in batch}
        held = self._held(list(mails))
        fresh = [
            RawMail(_key_of(id_), FOLDER, mail.raw or b"", mail.date, id_, backfill=True)
            for id_, mail in mails.items()
            if id_ not in held
        ]
        if self._intake is None:
            self._counted.update(_digest(id_) for id_ in mails if id_ not in held)
        elif fresh:
            items = self._intake.accept(self._mailbox, fresh)
            with transaction(self._engine) as conn:
                mail_items.add(conn, self._mailbox.id, items, datetime.now(UTC))
        imported.found += len(batch)
        imported.new += len(fresh)
        imported.held += len(batch) - len(fresh)
        imported.bytes += sum(len(mail.raw) for mail in fresh)

    def _held(self, ids: Sequence[str]) -> Set[str]:
        """The ids already present: imported, counted before, or in the ledger."""
        with transaction(self._engine) as conn:
            imported = mail_items.known(conn, self._mailbox.id, [_key_of(id_) for id_ in ids])
            recorded = ledger_entries.known_fingerprints(conn, [self._fingerprint(id_) for id_ in ids]) if self._key else set()
        return {
            id_
            for id_ in ids
            if _key_of(id_) in imported or _digest(id_) in self._counted or (recorded and self._fingerprint(id_) in recorded)
        }

    def _fingerprint(self, id_: str) -> bytes:
        return fingerprint(self._key or b"", self._mailbox.name, id_)


def _key_of(id_: str) -> str:
    return id_.replace("sha256:", "import/")


def _digest(id_: str) -> int:
    return int(id_.removeprefix("sha256:")[:32], 16)


_Placed = tuple[FoundMail, int]  # a mail, and the bytes of all files that have been read up to its end


def _mails(files: Iterable[MailFile], quoting: Quoting, imported: Imported, *, crlf: bool) -> Iterator[_Placed]:
    done = 0
    for file in files:
        imported.files += 1
        try:
            for mail in read_mails(file, quoting, crlf=crlf):
                if mail.raw is None:
                    imported.fail(f"{mail.path}: a mail that is too large ends at byte {mail.end}")
                else:
                    yield mail, done + mail.end
        except OSError as error:
            imported.fail(f"{file.path}: {error.strerror or error}")
        done += file.size


def _batched(mails: Iterable[_Placed]) -> Iterator[Sequence[_Placed]]:
    batch: list[_Placed] = []
    size = 0
    for each in mails:
        length = len(each[0].raw or b"")
        if batch and (len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch
