"""Makes the documents of mails that are due, as a chore of the relay, or one at once for a caller that cannot wait."""

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
ENOUGH: Final = 2.0  # seconds after which the documents made so far are stored, however few
TURN: Final = 60.0  # seconds for one call of `turn`
AWAY: Final = 15.0  # seconds until an unavailable blob store is tried again

_log = structlog.get_logger()


class DocumentMaker:
    """Makes documents with its own parser, until `close`. Any number of makers may work on one database."""

    def __init__(self, engine: Engine, blobs: Blobs, parser: MailParser) -> None:
        self._engine = engine
        self._blobs = blobs
        self._parser = parser
        self._closed = False
        self._away_until = 0.0  # of the blob store, by the monotonic clock

    def turn(self) -> None:
        """Make the documents that are due, for a minute at most. Those not made when this returns or raises stay due."""
        until = time.monotonic() + TURN
        while not self._closed and time.monotonic() < until:
            now = datetime.now(UTC)
            with transaction(self._engine) as conn:
                claims.forgettable(conn)
                due = mail_documents.take(conn, now, BATCH)
                trusted = mail_documents.authservs(conn) if due else {}
            if not due:
                return
            self._make(due, trusted)

    def kept(self, chain_id: UUID, seq: int) -> dict[str, Any] | None:
        """The stored document of an entry; None if there is none yet."""
        with transaction(self._engine) as conn:
            return mail_documents.get(conn, chain_id, seq)

    def make(self, due: DueDocument) -> dict[str, Any]:
        """Make one document now, and store it. Raises `BlobsAway` if the blob store is unavailable."""
        with transaction(self._engine) as conn:
            trusted = mail_documents.authservs(conn)
        document = self._read(due, trusted)
        self._keep({due.key: document})
        return document

    def close(self) -> None:
        """End the parser's process; a mail that it is parsing is parsed again later."""
        self._closed = True
        self._parser.close()

    def _make(self, due: Sequence[DueDocument], trusted: Mapping[tuple[str, str], Sequence[str]]) -> None:
        """Mails that the blob store cannot give now stay taken, so that they do not block others, and are due again later."""
        made: dict[Key, dict[str, Any]] = {}
        left = list(due)
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

    def _read(self, due: DueDocument, trusted: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, Any]:
        try:
            raw = due.body if due.body is not None else self._body(due)
        except BlobLost as error:
            return unread(b"", str(error))
        document = self._parser.read(raw, trusted.get((due.tenant, due.source), ()))
        if "unparsed" in document["flags"]:
            _log.warning("mail_unparsed", tenant=due.tenant, source=due.source, seq=due.seq, notes=document["notes"][:3])
        return document

    def _body(self, due: DueDocument) -> bytes:
        if time.monotonic() < self._away_until:
            raise BlobsAway("the blob store was unavailable a moment ago")
        try:
            return self._blobs.get(due.tenant, due.blob or "")
        except BlobsAway as error:
            self._away_until = time.monotonic() + AWAY
            _log.warning("documents_wait", error=str(error), again_in=AWAY)
            raise

    def _keep(self, made: Mapping[Key, dict[str, Any]]) -> None:
        if made:
            written = {key: orjson.dumps(document).decode() for key, document in made.items()}
            with transaction(self._engine) as conn:
                mail_documents.put(conn, written, PARSER, datetime.now(UTC))
