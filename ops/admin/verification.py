"""Exports the ledger in a snapshot: entries that are appended meanwhile are not included."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import IO

from sqlalchemy import Connection

from ops.admin.bundle_export import Missing, write_log
from ops.admin.read_session import known_tenant, open_engine, snapshot, tenant_keys
from ops.admin.views import View
from ops.errors import OpsError
from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.durable_files import replace_durably
from ops.settings import Settings
from pipeline.dedupe import chain_key
from pipeline.errors import BlobLost
from pipeline.ledger.bundles.bundle import entry_line, header_line
from pipeline.ledger.verifying.verify import Keys
from pipeline.store.ledger import ledger_claims, scan
from pipeline.store.ledger.scan import Scope
from schemas.ledger.ledger_rows import StoredEntry

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Subject:
    """What to export: everything, a tenant, or one subject of a tenant."""

    tenant: str | None = None
    subject: str | None = None


@contextmanager
def whole_ledger(settings: Settings, wanted: Subject) -> Iterator["LedgerSnapshot"]:
    """A snapshot of the ledger, valid until the block ends. Raises `OpsError` for an unknown tenant."""
    with open_engine(settings) as engine, snapshot(engine) as conn:
        if wanted.tenant is not None:
            known_tenant(conn, wanted.tenant)
        yield LedgerSnapshot(conn, wanted, tenant_keys(conn, settings), open_blobs(settings), settings)


@dataclass(frozen=True)
class LedgerSnapshot:
    """The ledger as it was at one moment. `keys` is None if no key is set to decrypt the tenants' keys."""

    conn: Connection
    wanted: Subject
    keys: Keys | None
    blobs: Blobs
    settings: Settings

    @property
    def scope(self) -> Scope:
        """What is wanted, in the form that the statements take."""
        tenant, subject = self.wanted.tenant, self.wanted.subject
        key = (self.keys or {}).get(tenant or "")
        return Scope(tenant, subject, chain_key(key, subject) if key is not None and subject is not None else None)

    def size(self) -> int:
        """The number of entries in the whole ledger, according to the heads; 0 when only a part is wanted."""
        return 0 if self.wanted.tenant else scan.size(self.conn)[1]

    def export(self, out: IO[bytes], progress: Progress, lost: Callable[[str], None]) -> int:
        """Writes a bundle of what is wanted; returns how many entries it holds. Raises `OpsError` if a subject has no entry.

        What is missing from it is reported to `lost`: a body that the blob store has lost, content that is gone and that no
        erasure lists, and the end of a chain. If the tenant's log is published, proofs that the entries are in it follow.
        """
        assert self.wanted.tenant is not None
        out.write(header_line(self.wanted.tenant, datetime.now(UTC)))
        count, ends = 0, {}
        for chain_id, entries in groupby(scan.entries(self.conn, self.scope), lambda entry: entry.chain_id):
            watch = Missing(lost)
            for entry in entries:
                out.write(entry_line(watch.see(self._whole(entry, lost))))
                count += 1
                if count % 1000 == 0:
                    progress(count)
            watch.end()
            ends[chain_id] = watch.last
        for chain in scan.chains(self.conn, self.scope):
            if ends.get(chain.chain_id, -1) < chain.seq:
                lost(f"{chain.subject!r}: its chain ends at entry {chain.seq}, its entries at {ends.get(chain.chain_id, -1)}")
        if not count and self.wanted.subject is not None:
            raise OpsError(
                f"nothing is recorded of {self.wanted.subject!r} for tenant {self.wanted.tenant}: no file was written"
            )
        write_log(out, self.conn, self.settings, self.wanted.tenant, ends.keys())
        return count

    def claim(self, *, complete: bool) -> View:
        """What the last verification claimed of the tenant's ledger; nothing if what is exported was not `complete`.

        `claim` and `checked_at` are None if there was no verification that claims anything.
        """
        if not complete:
            return {"claim": "none", "checked_at": None, "missing": "for chained: what is missing from the export"}
        found = next((each for each in ledger_claims.kept(self.conn) if each.tenant == self.wanted.tenant), None)
        if found is None:
            return {"claim": None, "checked_at": None, "missing": "for chained: a verification: run `waxseal verifier`"}
        return {"claim": found.word, "checked_at": found.checked_at.astimezone(UTC).isoformat(), "missing": found.missing}

    def _whole(self, entry: StoredEntry, lost: Callable[[str], None]) -> StoredEntry:
        if entry.blob is None or entry.body is not None:
            return entry
        try:
            return entry._replace(body=self.blobs.get(entry.tenant, entry.blob))
        except BlobLost as error:
            lost(f"{entry.subject!r} entry {entry.seq}: {error}")
            return entry


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that replaces `path` when the block ends, complete and fsynced. If the block raises, `path` is as before.

    Only the owner can read it. A `path` that is not a regular file (a pipe, /dev/stdout) is written to directly.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as out:
            yield out
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
        replace_durably(Path(name), path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
