"""Statements on the documents of mails: planned in the entry's own transaction, made, made again, read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.store.copy_binary import copy_rows, int8
from pipeline.store.ledger.entries import uuids
from schemas.entry import Entry
from schemas.mailbox import CONTENT_TYPE

TAKEN: Final = timedelta(minutes=5)  # after which another process may take a document that was taken and not made

COPY_PLANNED = "COPY mail_document (chain_id, seq) FROM STDIN (FORMAT binary)"

# One statement that skips rows locked by another process. Reads only the index of due documents, however many were made.
TAKE = text("""
    WITH due AS MATERIALIZED (
      SELECT chain_id, seq FROM mail_document WHERE due AND (taken_at IS NULL OR taken_at < :before)
      ORDER BY chain_id, seq LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE mail_document SET taken_at = :now FROM due, content, entry
    WHERE (mail_document.chain_id, mail_document.seq) = (due.chain_id, due.seq)
      AND (content.chain_id, content.seq) = (due.chain_id, due.seq) AND (entry.chain_id, entry.seq) = (due.chain_id, due.seq)
    RETURNING mail_document.chain_id, mail_document.seq, tenant, source, body, blob""")

GIVE_BACK = text("""
    UPDATE mail_document SET taken_at = NULL
    FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[])) AS given (chain_id, seq)
    WHERE (mail_document.chain_id, mail_document.seq) = (given.chain_id, given.seq) AND due""")

# If the content was erased meanwhile, the row is gone, and none is added.
PUT = text("""
    UPDATE mail_document SET document = CAST(made.document AS jsonb), parser = :parser, made_at = :now, due = false,
                             taken_at = NULL
    FROM unnest(CAST(:chains AS uuid[]), CAST(:seqs AS bigint[]), CAST(:documents AS text[])) AS made (chain_id, seq, document)
    WHERE (mail_document.chain_id, mail_document.seq) = (made.chain_id, made.seq)""")

GET = text("SELECT document FROM mail_document WHERE chain_id = :chain_id AND seq = :seq")

# The same id may have come through several sources; each is an event of its own.
FIND = text("""
    SELECT entry.chain_id, entry.seq, tenant, source, subject, body, blob, document, made_at, mail_document.parser, attributes,
           mail_document.chain_id IS NOT NULL AS is_mail, content.chain_id IS NULL AS is_erased
    FROM entry LEFT JOIN content USING (chain_id, seq) LEFT JOIN mail_document USING (chain_id, seq)
    WHERE fingerprint = ANY(CAST(:keys AS uuid[]))""")

AUTHSERVS = text("""
    SELECT tenant.name AS tenant, source.name AS source, mailbox.settings -> 'authservs' AS authservs
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = source.tenant_id
    WHERE mailbox.settings -> 'authservs' IS NOT NULL""")

SOURCES = text("""
    SELECT source.name FROM source JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant ORDER BY source.name""")

COUNT = text("""
    SELECT count(*) FILTER (WHERE document IS NOT NULL) AS made, count(*) FILTER (WHERE due) AS waiting,
           count(*) FILTER (WHERE parser < :parser) AS outdated,
           count(*) FILTER (WHERE document -> 'flags' ? 'unparsed') AS unparsed
    FROM mail_document""")

# In limited batches, so that no other transaction waits long for it.
MAKE_AGAIN = text("""
    WITH stale AS MATERIALIZED (
      SELECT chain_id, seq FROM mail_document WHERE NOT due AND (parser < :parser OR (parser = :parser AND made_at < :before))
      LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE mail_document SET due = true FROM stale
    WHERE (mail_document.chain_id, mail_document.seq) = (stale.chain_id, stale.seq)""")

Key = tuple[UUID, int]  # chain id and number of an entry


@dataclass(frozen=True, slots=True)
class DueDocument:
    """A mail whose document is to be made; its bytes are in `body`, or in the blob store under `blob`."""

    chain_id: UUID
    seq: int
    tenant: str
    source: str
    body: bytes | None
    blob: str | None

    @property
    def key(self) -> Key:
        """The key of its entry."""
        return self.chain_id, self.seq


@lru_cache(256)
def is_mail(content_type: str) -> bool:
    """Whether an event with this datacontenttype is a mail."""
    return content_type.partition(";")[0].strip().lower() == CONTENT_TYPE


def plan(conn: Connection, entries: Iterable[Entry]) -> None:
    """Plans a document for each entry that is a mail, in the transaction that appends the entries."""
    mails = [each for each in entries if is_mail(each.event.attributes["datacontenttype"])]
    if mails:
        copy_rows(conn, COPY_PLANNED, ((each.chain_id.bytes, int8(each.seq)) for each in mails))


def take(conn: Connection, now: datetime, limit: int) -> list[DueDocument]:
    """At most `limit` mails whose document is due; no other process gets them for `TAKEN`."""
    rows = conn.execute(TAKE, {"now": now, "before": now - TAKEN, "limit": limit})
    return [DueDocument(*row) for row in rows]


def give_back(conn: Connection, keys: Sequence[Key]) -> None:
    """Releases documents that were taken and not made."""
    if keys:
        conn.execute(GIVE_BACK, _keys(keys))


def put(conn: Connection, made: Mapping[Key, str], parser: int, now: datetime) -> int:
    """Stores documents, each as JSON; returns how many, which is fewer if content was erased meanwhile."""
    if not made:
        return 0
    row = {**_keys(list(made)), "documents": list(made.values()), "parser": parser, "now": now}
    return conn.execute(PUT, row).rowcount


def get(conn: Connection, chain_id: UUID, seq: int) -> dict[str, Any] | None:
    """The document of an entry; None when it has none, or it is not made yet."""
    found: dict[str, Any] | None = conn.execute(GET, {"chain_id": chain_id, "seq": seq}).scalar()
    return found


def find(conn: Connection, fingerprints: Collection[bytes]) -> list[Any]:
    """The entries with those fingerprints, with whatever exists of their content and document."""
    return list(conn.execute(FIND, {"keys": uuids(fingerprints)}).mappings())


def authservs(conn: Connection) -> dict[tuple[str, str], tuple[str, ...]]:
    """The authserv-ids whose Authentication-Results are trusted, by tenant and source."""
    return {(row.tenant, row.source): tuple(row.authservs) for row in conn.execute(AUTHSERVS)}


def sources(conn: Connection, tenant: str) -> list[str]:
    """The names of the tenant's sources."""
    return list(conn.execute(SOURCES, {"tenant": tenant}).scalars())


def count(conn: Connection, parser: int) -> dict[str, int]:
    """The numbers of documents that are made, waiting, of a version before `parser` (`outdated`), and `unparsed`."""
    return {name: int(value) for name, value in conn.execute(COUNT, {"parser": parser}).mappings().one().items()}


def make_again(conn: Connection, parser: int, before: datetime | None, limit: int) -> int:
    """Marks at most `limit` documents to be made again: of versions before `parser`, or made before `before`; returns how many.

    The old document stays until the new one replaces it.
    """
    asked = {"parser": parser, "before": before, "limit": limit}
    return conn.execute(MAKE_AGAIN, asked).rowcount


def _keys(keys: Sequence[Key]) -> dict[str, Any]:
    return {"chains": [chain_id for chain_id, _ in keys], "seqs": [seq for _, seq in keys]}
