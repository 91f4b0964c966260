"""POST /in/{tenant}/{source}: the signature is checked, the event goes to the inbox, and 202 says that the broker has it."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from ops import metrics
from ops.blobs import Blobs
from pipeline.cloudevents import BATCH, media_type
from pipeline.errors import BlobsAway, Rejected
from pipeline.kinds import KINDS, Kind, Reply, Unverified
from pipeline.receive import receive as events_of
from schemas.blob import LARGEST_INLINE, Blob
from schemas.source import Source
from workers.catalog import CatalogWatch
from workers.inbox import to_inbox
from workers.incoming import Budget, Gone, Incoming
from workers.limits import Limits
from workers.problems import RETRY_AFTER, Problem, RawHeaders, answer_headers
from workers.publisher import Publisher, Unconfirmed

BLOB_SECONDS: Final = 10.0  # for the large bodies of a request to be put away, while its sender waits
BLOBS_AT_ONCE: Final = 8

#: Stands in for a source that does not exist, so that its messages take as long as others.
NOBODY: Final = Source("", "", "standard-webhooks", ("whsec_" + "A" * 43 + "=",))

Answer = tuple[int, RawHeaders, bytes]  # status, headers, body

_log = structlog.get_logger()


class Intake:
    """The ASGI application behind the route."""

    def __init__(self, catalog: CatalogWatch, publisher: Publisher, blobs: Blobs, processes: int = 1) -> None:
        self._catalog = catalog
        self._publisher = publisher
        self._blobs = blobs
        self._keeping = ThreadPoolExecutor(BLOBS_AT_ONCE, "blobs")
        self._budget = Budget()
        self._limits = Limits(catalog, processes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever it holds."""
        began = time.perf_counter()
        incoming = Incoming(scope, self._budget)
        source = self._source(scope["path_params"])
        reason = None
        try:
            status, headers, body = await self._accept(incoming, source, receive)
        except Problem as problem:
            status, (headers, body) = problem.status, problem.answer(incoming.id)
            reason = problem.reason if status < 500 else None
            _report(problem, incoming, source)
        except Gone:
            return
        finally:
            incoming.done()
        label = source.kind if source is not NOBODY else "unknown"
        metrics.observe_response(label, status, time.perf_counter() - began, incoming.size, reason)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _source(self, path: dict[str, str]) -> Source:
        source = self._catalog.current.sources.get((path["tenant"], path["source"]), NOBODY)
        return source if source.kind in KINDS else NOBODY

    async def _accept(self, incoming: Incoming, source: Source, receive: Receive) -> Answer:
        if incoming.method != "POST":
            raise Problem("method", "messages are sent with POST", ("Allow", "POST"))
        if not self._catalog.loaded:
            raise Problem("unavailable", "the configuration has not been read yet", RETRY_AFTER)
        incoming.check_form()
        if source.rate_limit is not None:
            self._limits.check(source, *incoming.unread)
        body = await incoming.body(receive, source.max_body)
        now = datetime.now(UTC)
        kind = _verify(source, incoming, body, now)
        if kind.greet is not None and (reply := kind.greet(incoming.headers, body)):
            return _replied(incoming, reply)
        if source.rate_limit is not None:
            self._limits.take(source)
        try:
            events = events_of(source, incoming.headers, body, now, _fresh_id)
        except Rejected as error:
            name = "too_large" if error.reason == "too_large" else "malformed"
            raise Problem(name, error.detail, reason=error.reason) from None
        if len(body) > LARGEST_INLINE:
            await self._publish(source, await self._kept(source, events))
        else:
            await self._publish(source, events)
        if kind.replies and (reply := kind.replies.get(source.options.get("answer", ""))):
            return _replied(incoming, reply)
        return _accepted(incoming, source, [attributes["id"] for attributes, _ in events])

    async def _publish(self, source: Source, events: Sequence[tuple[dict[str, str], bytes | Blob]]) -> None:
        """Returns when the broker has every one of `events`; those it has of a batch that fails are duplicates next time."""
        confirms = [self._publisher.post(to_inbox(source, attributes, body)) for attributes, body in events]
        try:
            if len(confirms) == 1:
                await confirms[0]
            else:
                await asyncio.gather(*confirms)
        except Unconfirmed as error:
            raise Problem("unavailable", str(error), RETRY_AFTER) from None

    async def _kept(
        self, source: Source, events: Sequence[tuple[dict[str, str], bytes]]
    ) -> list[tuple[dict[str, str], bytes | Blob]]:
        """Returns when the blob store has the large ones: what a message refers to must be there before."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BLOB_SECONDS):
                return [
                    (each, await loop.run_in_executor(self._keeping, self._blobs.keep, source.tenant, body))
                    for each, body in events
                ]
        except (BlobsAway, TimeoutError) as error:
            _log.warning("blob_not_kept", error=str(error), tenant=source.tenant, source=source.name)
            raise Problem("unavailable", "the store of large messages is away", RETRY_AFTER) from None


def _verify(source: Source, incoming: Incoming, body: bytes, now: datetime) -> Kind:
    kind = KINDS[source.kind]
    try:
        kind.verify(source, incoming.headers, body, now)
    except Unverified as error:
        if source is not NOBODY:
            name = "timestamp" if error.reason == "timestamp" else "signature"
            raise Problem(name, error.detail, ("WWW-Authenticate", kind.challenge), reason=error.reason) from None
    if source is NOBODY:
        raise Problem("not_found", "no such tenant or source", reason="unknown_source")
    return kind


def _replied(incoming: Incoming, reply: Reply) -> Answer:
    return reply.status, answer_headers(reply.content_type, reply.body, incoming.id), reply.body


def _accepted(incoming: Incoming, source: Source, ids: list[str]) -> Answer:
    answer: dict[str, object] = {"id": ids[0] if ids else None}
    if KINDS[source.kind].describe is None and media_type(incoming.headers.get("content-type")) == BATCH:
        answer["ids"] = ids
    body = orjson.dumps(answer)
    return 202, answer_headers(b"application/json", body, incoming.id), body


def _report(problem: Problem, incoming: Incoming, source: Source) -> None:
    _log.info(
        "message_refused",
        status=problem.status,
        reason=problem.reason,
        detail=problem.detail,
        tenant=source.tenant,
        source=source.name,
        request_id=incoming.id,
    )


def _fresh_id() -> str:
    return str(uuid.uuid4())
