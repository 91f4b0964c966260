"""The bodies for endpoints that want documents: of a mail its document, of other events the body as it was received."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import orjson
import structlog

from ops.runtime.db import passes
from pipeline.errors import BlobsAway
from pipeline.store.mail import documents as mail_documents
from pipeline.store.mail.documents import DueDocument
from schemas.delivery import Delivery
from schemas.mail_document import CONTENT_TYPE, SCHEMA
from workers.delivery.bodies import BodyFetcher
from workers.delivery.not_sent import Untried
from workers.documents.maker import DocumentMaker

AT_ONCE: Final = 4  # look-ups; missing documents are made one at a time
AGAIN: Final = 5.0  # seconds until a delivery whose document could not be read or made is due again

_log = structlog.get_logger()


class Documents:
    """From construction to `close`, on the running event loop."""

    def __init__(self, fetcher: BodyFetcher, maker: DocumentMaker) -> None:
        self._loop = asyncio.get_running_loop()
        self._fetcher = fetcher
        self._maker = maker
        self._threads = ThreadPoolExecutor(AT_ONCE, "documents")

    async def whole(self, delivery: Delivery) -> Delivery | Untried:
        """The delivery with the document in place of the mail, made if necessary. Events other than mails keep their body.

        If the document is not available at the moment, no attempt is counted and the delivery is due again later.
        """
        facts: dict[str, str] = orjson.loads(delivery.attributes)
        if not mail_documents.is_mail(facts["datacontenttype"]):
            return await self._fetcher.whole(delivery)
        try:
            document = await self._loop.run_in_executor(self._threads, self._maker.kept, delivery.chain_id, delivery.seq)
            if document is None:
                whole = await self._fetcher.whole(delivery)
                if isinstance(whole, Untried):
                    return whole
                document = await self._loop.run_in_executor(self._threads, self._made, whole, facts["source"])
        except Exception as error:
            if not (passes(error) or isinstance(error, BlobsAway | OSError)):
                raise
            _log.warning("document_not_had", delivery=delivery.id, error=type(error).__name__)
            return Untried((delivery.id, delivery.lease), "pending", wait=AGAIN)
        return instead(delivery, facts, document)

    def close(self) -> None:
        """Shut down the threads, and the process that parses mails."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._maker.close()

    def _made(self, delivery: Delivery, source: str) -> dict[str, Any]:
        due = DueDocument(delivery.chain_id, delivery.seq, delivery.tenant, source, delivery.body, None)
        return self._maker.make(due)


def instead(delivery: Delivery, facts: dict[str, str], document: dict[str, Any]) -> Delivery:
    """The delivery of a document: the recorded event with the document's content type, schema and body."""
    told = {**facts, "datacontenttype": CONTENT_TYPE, "dataschema": SCHEMA}
    body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return replace(delivery, attributes=orjson.dumps(told), body=body, blob=None)
