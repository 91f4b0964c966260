"""POST /in/{tenant}/{source}: the signature is checked, the event goes to the inbox, and 202 says that the broker has it."""

import asyncio
import time
import uuid
from datetime import UTC, datetime
from typing import Final

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from ops import metrics
from pipeline.cloudevents import BATCH, media_type
from pipeline.errors import Rejected
from pipeline.kinds import KINDS, Unverified
from pipeline.receive import receive as events_of
from schemas.source import Source
from workers.catalog import CatalogWatch
from workers.inbox import to_inbox
from workers.incoming import Budget, Gone, Incoming
from workers.problems import RETRY_AFTER, Problem, RawHeaders, answer_headers
from workers.publisher import Publisher, Unconfirmed

#: Stands in for a source that does not exist, so that its messages take as long as others.
NOBODY: Final = Source("", "", "standard-webhooks", ("whsec_" + "A" * 43 + "=",))

_log = structlog.get_logger()


class Intake:
    """The ASGI application behind the route."""

    def __init__(self, catalog: CatalogWatch, publisher: Publisher) -> None:
        self._catalog = catalog
        self._publisher = publisher
        self._budget = Budget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever it holds."""
        began = time.perf_counter()
        incoming = Incoming(scope, self._budget)
        source = self._source(scope["path_params"])
        reason = None
        try:
            status, (headers, body) = 202, await self._accept(incoming, source, receive)
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

    async def _accept(self, incoming: Incoming, source: Source, receive: Receive) -> tuple[RawHeaders, bytes]:
        if incoming.method != "POST":
            raise Problem("method", "messages are sent with POST", ("Allow", "POST"))
        if not self._catalog.loaded:
            raise Problem("unavailable", "the configuration has not been read yet", RETRY_AFTER)
        incoming.check_form()
        body = await incoming.body(receive, source.max_body)
        now = datetime.now(UTC)
        _verify(source, incoming, body, now)
        try:
            events = events_of(source, incoming.headers, body, now, _fresh_id)
        except Rejected as error:
            name = "too_large" if error.reason == "too_large" else "malformed"
            raise Problem(name, error.detail, reason=error.reason) from None
        await self._publish(source, events)
        return _accepted(incoming, source, [attributes["id"] for attributes, _ in events])

    async def _publish(self, source: Source, events: list[tuple[dict[str, str], bytes]]) -> None:
        """Returns when the broker has every one of `events`; those it has of a batch that fails are duplicates next time."""
        confirms = [self._publisher.post(to_inbox(source, attributes, body)) for attributes, body in events]
        try:
            if len(confirms) == 1:
                await confirms[0]
            else:
                await asyncio.gather(*confirms)
        except Unconfirmed as error:
            raise Problem("unavailable", str(error), RETRY_AFTER) from None


def _verify(source: Source, incoming: Incoming, body: bytes, now: datetime) -> None:
    kind = KINDS[source.kind]
    try:
        kind.verify(source, incoming.headers, body, now)
    except Unverified as error:
        if source is not NOBODY:
            name = "timestamp" if error.reason == "timestamp" else "signature"
            raise Problem(name, error.detail, ("WWW-Authenticate", kind.challenge), reason=error.reason) from None
    if source is NOBODY:
        raise Problem("not_found", "no such tenant or source", reason="unknown_source")


def _accepted(incoming: Incoming, source: Source, ids: list[str]) -> tuple[RawHeaders, bytes]:
    answer: dict[str, object] = {"id": ids[0] if ids else None}
    if KINDS[source.kind].describe is None and media_type(incoming.headers.get("content-type")) == BATCH:
        answer["ids"] = ids
    body = orjson.dumps(answer)
    return answer_headers(b"application/json", body, incoming.id), body


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
