"""Makes the documents of mails that are due, beside the relay's work; and one at once, for who cannot wait."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from ops.runtime.blobs import Blobs
from ops.runtime.db import Engine, transaction
from pipeline.errors import BlobLost, BlobsAway
from pipeline.store.deliveries import claims
from pipeline.store.mail import documents as mail_documents
from pipeline.store.mail.documents import DueDocument, Key
from schemas.mail_document import PARSER
from workers.documents.mail_parser import MailParser, unread

BATCH: Final = 25  # mails in one transaction
ENOUGH: Final = 2.0  # seconds after which what is made is kept, however little it is
TURN: Final = 60.0  # seconds for one turn
AWAY: Final = 15.0  # seconds after which a blob store that was away is asked again

_log = structlog.get_logger()


class DocumentMaker:
    """Makes documents with a reader of its own, until `close`. Any number may work on one database."""

    def __init__(self, engine: Engine, blobs: Blobs, reader: MailParser) -> None:
        self._engine = engine
        self._blobs = blobs
        self._reader = reader
        self._closed = False
        self._away_until = 0.0  # of the blob store, by the monotonic clock

    def turn(self) -> None:
        """Make what is due, for a minute at most. What was not made when this raises or ends is taken up by another."""
        until = time.monotonic() + TURN
        while not self._closed and time.monotonic() < until:
            now = datetime.now(UTC)
            with transaction(self._engine) as conn:
                claims.forgettable(conn)
                owed = mail_documents.take(conn, now, BATCH)
                trusted = mail_documents.authservs(conn) if owed else {}
            if not owed:
                return
            self._make(owed, trusted)

    def kept(self, chain_id: UUID, seq: int) -> dict[str, Any] | None:
        """The document that there is of an entry; None when there is none yet."""
        with transaction(self._engine) as conn:
            return mail_documents.get(conn, chain_id, seq)

    def make(self, owed: DueDocument) -> dict[str, Any]:
        """Make one document now, and keep it. Raises `BlobsAway` when the mail cannot be had just now."""
        with transaction(self._engine) as conn:
            trusted = mail_documents.authservs(conn)
        document = self._read(owed, trusted)
        self._keep({owed.key: document})
        return document

    def close(self) -> None:
        """End the reader's process; a mail that it reads just then is read again later."""
        self._closed = True
        self._reader.close()

    def _make(self, owed: Sequence[DueDocument], trusted: Mapping[tuple[str, str], Sequence[str]]) -> None:
        """What the blob store does not give just now stays taken, so that it is in nobody's way, and is due again later."""
        made: dict[Key, dict[str, Any]] = {}
        left = list(owed)
        began = time.monotonic()
        try:
            while left and not self._closed and time.monotonic() - began < ENOUGH:
                with suppress(BlobsAway):
                    made[left[0].key] = self._read(left[0], trusted)
                left.pop(0)
        finally:
            self._keep(made)
            with transaction(self._engine) as conn:
                mail_documents.give_back(conn, [each.key for each in left])

    def _read(self, owed: DueDocument, trusted: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, Any]:
        try:
            raw = owed.body if owed.body is not None else self._fetched(owed)
        except BlobLost as error:
            return unread(b"", str(error))
        document = self._reader.read(raw, trusted.get((owed.tenant, owed.source), ()))
        if "unparsed" in document["flags"]:
            _log.warning("mail_unparsed", tenant=owed.tenant, source=owed.source, seq=owed.seq, notes=document["notes"][:3])
        return document

    def _fetched(self, owed: DueDocument) -> bytes:
        if time.monotonic() < self._away_until:
            raise BlobsAway("the blob store was away just before")
        try:
            return self._blobs.get(owed.tenant, owed.blob or "")
        except BlobsAway as error:
            self._away_until = time.monotonic() + AWAY
            _log.warning("documents_wait", error=str(error), again_in=AWAY)
            raise

    def _keep(self, made: Mapping[Key, dict[str, Any]]) -> None:
        if made:
            written = {key: orjson.dumps(document).decode() for key, document in made.items()}
            with transaction(self._engine) as conn:
                mail_documents.put(conn, written, PARSER, datetime.now(UTC))
