"""POST /in/{tenant}/{source}: verifies the signature and publishes the event to the inbox; 202 means the broker has it."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from ops.runtime.blobs import Blobs
from ops.telemetry import metrics
from ops.telemetry.tracing import ingress_spans
from ops.telemetry.tracing.switch import active, within
from pipeline.errors import BlobsAway, Rejected
from pipeline.formats.cloudevents import BATCH, media_type
from pipeline.receive import receive
from pipeline.sources import KINDS, Headers, Kind, Reply, Unverified
from schemas.blob import LARGEST_INLINE, Blob
from schemas.source import Source
from schemas.trace import TraceContext
from workers.amqp.inbox_message import to_inbox
from workers.amqp.publisher import Publisher
from workers.ingress.problems import RETRY_AFTER, Answer, Problem, internal
from workers.ingress.rate_limits import Limits
from workers.ingress.request import Incoming
from workers.live_catalog import CatalogWatch

if TYPE_CHECKING:
    from ops.telemetry.tracing.spans import Spans

BLOB_SECONDS: Final = 10.0  # to store the large bodies of a request, while its sender waits
BLOBS_AT_ONCE: Final = 8

_LARGE: Final = 64 * 1024  # bytes from which a body is parsed in a thread, so that other messages do not wait for it
_LARGE_AT_ONCE: Final = 2  # bounds the memory for parsing, too

#: Stands in for a source that does not exist, so that its messages take as long as those of existing sources.
NO_SOURCE: Final = Source("", "", "standard-webhooks", ("whsec_" + "A" * 43 + "=",))

Event = tuple[dict[str, str], bytes]
Sealed = tuple[dict[str, str], bytes | Blob]  # with its body, or the reference to it

_log = structlog.get_logger()


class Intake:
    """Handles messages without blocking; a large body gets a task of its own."""

    def __init__(self, catalog: CatalogWatch, publisher: Publisher, blobs: Blobs, processes: int = 1) -> None:
        self._catalog = catalog
        self._publisher = publisher
        self._blobs = blobs
        self._keeping = ThreadPoolExecutor(BLOBS_AT_ONCE, "blobs")
        self._reading = ThreadPoolExecutor(_LARGE_AT_ONCE, "reading")
        self._limits = Limits(catalog, processes)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, request: Incoming) -> None:
        """Check the head. Raises `Problem`."""
        request.began = time.perf_counter()
        loaded = self._catalog.loaded  # read before the source: were the catalog loaded in between, the source would be missing
        source = request.source = self._source(request)
        if request.method != "POST":
            raise Problem("method", "messages are sent with POST", ("Allow", "POST"))
        if not loaded:
            raise Problem("unavailable", "the configuration has not been read yet", RETRY_AFTER)
        request.check_form()
        if source.rate_limit is not None:
            self._limits.check(source, *request.unread)
        request.allow(source.max_body)

    def complete(self, request: Incoming) -> None:
        """Publish the message, and answer when that is done. Raises `Problem`."""
        if request.size < _LARGE:
            found = _judged(request.source, request.headers, request.body())
            self._record(request, found, found if isinstance(found, list) else [])
        else:
            task = asyncio.get_running_loop().create_task(self._complete_large(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def refuse(self, request: Incoming, problem: Problem) -> None:
        """Answer with the problem, and log it."""
        source = request.source
        with within(None if request.receiving is None else request.receiving.span):
            _log.info(
                "message_refused",
                status=problem.status,
                reason=problem.reason,
                detail=problem.detail,
                tenant=source.tenant,
                source=source.name,
                request_id=request.id,
            )
        self._answer(request, problem.answer(request.id), problem.reason if problem.status < 500 else None)

    def _source(self, request: Incoming) -> Source:
        source = self._catalog.current.sources.get((request.segments[2], request.segments[3]), NO_SOURCE)
        return source if source.kind in KINDS else NO_SOURCE

    async def _complete_large(self, request: Incoming) -> None:
        source, body, loop = request.source, request.body(), asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._reading, _judged, source, request.headers, body)
            if isinstance(found, list) and len(body) > LARGEST_INLINE:
                self._record(request, found, await self._kept(source, found))
            else:
                self._record(request, found, found if isinstance(found, list) else [])
        except Problem as problem:
            self.refuse(request, problem)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender is answered
            _log.exception("request_failed", request_id=request.id)
            self.refuse(request, internal(error))

    async def _kept(self, source: Source, events: Sequence[Event]) -> list[Sealed]:
        """Return when the blob store has the large bodies: a body must be durable before a message refers to it."""
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

    def _record(self, request: Incoming, found: "Reply | list[Event]", sealed: Sequence[Sealed]) -> None:
        """Answer when the broker has every event. If a batch fails in part, its published events are duplicates next time."""
        source = request.source
        if isinstance(found, Reply):
            self._answer(request, _replied(found))
            return
        if source.rate_limit is not None:
            self._limits.take(source)
        answer = _taken(request, found)
        if not sealed:
            self._answer(request, answer)
            return
        publisher, tell = self._publisher, partial(self._settled, request, answer)
        settle = tell if len(sealed) == 1 else _Settle(len(sealed), tell)
        hops = self._hops(request, sealed)
        for attributes, body in sealed:
            publisher.send(to_inbox(source, attributes, body, next(hops)), publisher.deadline(), settle)

    def _hops(self, request: Incoming, sealed: Sequence[Sealed]) -> Iterator[TraceContext | None]:
        """For each event the span of its publishing, if that is recorded."""
        spans = active()
        if spans is None:
            return repeat(None)
        key = self._catalog.current.tenants.get(request.source.tenant)
        if key is None:  # the tenant was removed a moment ago
            return repeat(None)
        events = [attributes for attributes, _ in sealed]
        request.receiving = ingress_spans.receiving(spans, request.headers, key, events)
        return repeat(None) if request.receiving is None else iter(request.receiving.hops)

    def _settled(self, request: Incoming, answer: Answer, fault: str | None) -> None:
        if fault is None:
            self._answer(request, answer)
        else:
            self.refuse(request, Problem("unavailable", fault, RETRY_AFTER))

    def _answer(self, request: Incoming, answer: Answer, rejection: str | None = None) -> None:
        label = request.source.kind if request.source is not NO_SOURCE else "unknown"
        seconds = time.perf_counter() - request.began
        span = None if request.receiving is None else request.receiving.span
        trace_id = span.trace_id if span is not None and span.sampled else None
        metrics.observe_response(label, answer.status, seconds, request.size, rejection, trace_id)
        if (spans := active()) is not None:
            _trace(spans, request, answer.status, seconds, rejection)
        request.answer(answer)


def _trace(spans: "Spans", request: Incoming, status: int, seconds: float, rejection: str | None) -> None:
    source = None if request.source is NO_SOURCE else request.source
    told = ingress_spans.answer_of(source, request.method, status, request.size, request.id, rejection)
    fault = str(status) if status >= 500 else None
    if request.receiving is not None and source is not None:
        request.receiving.record(spans, source, told, seconds, fault)
    else:
        ingress_spans.refused(spans, request.headers, told, seconds, fault)


class _Settle:
    """Collects the results of `count` messages; calls `tell` once: when all are durable, or at the first fault."""

    __slots__ = ("_left", "_tell")

    def __init__(self, count: int, tell: Callable[[str | None], None]) -> None:
        self._left = count
        self._tell = tell

    def __call__(self, fault: str | None) -> None:
        if self._left <= 0:
            return
        self._left = 0 if fault is not None else self._left - 1
        if not self._left:
            self._tell(fault)


def _judged(source: Source, headers: Headers, body: bytes) -> "Reply | list[Event]":
    """The events of a message with a valid signature, or the reply to a greeting. Raises `Problem`. Safe from any thread."""
    now = datetime.now(UTC)
    kind = _verified(source, headers, body, now)
    try:
        if kind.greet is not None and (reply := kind.greet(headers, body)):
            return reply
        return receive(source, headers, body, now, _fresh_id)
    except Rejected as error:
        name = "too_large" if error.reason == "too_large" else "malformed"
        raise Problem(name, error.detail, reason=error.reason) from None


def _verified(source: Source, headers: Headers, body: bytes, now: datetime) -> Kind:
    kind = KINDS[source.kind]
    try:
        kind.verify(source, headers, body, now)
    except Unverified as error:
        if source is not NO_SOURCE:
            name = "timestamp" if error.reason == "timestamp" else "signature"
            raise Problem(name, error.detail, ("WWW-Authenticate", kind.challenge), reason=error.reason) from None
    if source is NO_SOURCE:
        raise Problem("not_found", "no such tenant or source", reason="unknown_source")
    return kind


def _taken(request: Incoming, events: Sequence[Event]) -> Answer:
    kind = KINDS[request.source.kind]
    if kind.replies and (reply := kind.replies.get(request.source.options.get("answer", ""))):
        return _replied(reply)
    told: dict[str, object] = {"id": events[0][0]["id"] if events else None}
    if kind.describe is None and media_type(request.headers.get("content-type")) == BATCH:
        told["ids"] = [attributes["id"] for attributes, _ in events]
    return Answer(202, b"application/json", orjson.dumps(told))


def _replied(reply: Reply) -> Answer:
    return Answer(reply.status, reply.content_type, reply.body)


def _fresh_id() -> str:
    return str(uuid.uuid4())
