"""Makes routes of operations: reads what was asked by the operation's models, and writes what it answers."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from ops.admin.access.repeated import OtherRequest, UnderWay, once
from ops.errors import OpsError
from workers.console.api.api_problems import Invalid, invalid, of_ops
from workers.console.api.operation import JSON, Answer, Asked, Operation
from workers.console.api.paths import IN_PATH, PREFIX
from workers.console.call import Call, Console, Forbidden, Refused, carry_out

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,200}"')

_IN_PATH: Final = {name: re.compile(pattern, re.ASCII) for name, pattern in IN_PATH.items()}


def route(console: Console, operation: Operation) -> BaseRoute:
    """The route of an operation."""

    def handle(call: Call) -> Response:
        if operation.scope == "any" and not any(call.principal.may(operation.role, each) for each in call.principal.grants):
            raise Forbidden(403, "forbidden", f"this needs the role {operation.role}")
        if operation.fresh:
            call.must_be_fresh()
        try:
            asked = _asked(operation, call)
            return _keyed(operation, asked) if operation.keyed != "no" else _response(operation, operation.handler(asked))
        except OpsError as error:
            raise of_ops(error) from error

    async def answer(request: Request) -> Response:
        _check_path(request.path_params)
        body = await request.body()
        role = None if operation.scope == "any" else operation.role
        return await carry_out(console, request, role, handle, body)

    return Route(PREFIX + operation.path, answer, methods=[operation.method])


def _check_path(path: Mapping[str, Any]) -> None:
    for name, value in path.items():
        if not _IN_PATH[name].fullmatch(value):
            raise Refused(404, "not_found", f"there is no such {name}")


def _asked(operation: Operation, call: Call) -> Asked:
    query = _query(operation.query, call.request)
    etag = _etag(call.request) if operation.if_match else None
    return Asked(call, query, _body(operation, call), etag)


def _query(model: type[BaseModel], request: Request) -> BaseModel:
    given = request.query_params.multi_items()
    twice = [name for name, count in Counter(name for name, _ in given).items() if count > 1]
    if twice:
        raise Invalid([{"parameter": name, "detail": "is there more than once"} for name in twice])
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise invalid(error, in_body=False) from None


def _body(operation: Operation, call: Call) -> Any:
    raw: bytes = call.body
    wanted = (JSON,) if operation.body is not None else operation.body_media
    if not wanted:
        if raw:
            raise Invalid([{"pointer": "", "detail": "this operation takes no body"}])
        return None
    if not raw and operation.body is not None and not _needed(operation.body):
        raw = b"{}"
    elif call.request.headers.get("content-type", "").partition(";")[0].strip().lower() not in wanted:
        raise Refused(415, "unsupported_media_type", f"send the body as {' or '.join(wanted)}")
    if operation.body is None:
        return raw
    try:
        return operation.body.model_validate_json(raw, strict=True)
    except ValidationError as error:
        if any(each["type"] == "json_invalid" for each in error.errors(include_url=False, include_input=False)):
            raise Refused(400, "malformed", "the body is not JSON in UTF-8") from None
        raise invalid(error, in_body=True) from None


def _needed(body: type[BaseModel]) -> bool:
    """Whether a body of this model must be there."""
    return any(each.is_required() for each in body.model_fields.values())


def _etag(request: Request) -> str:
    given = request.headers.get("if-match", "").strip()
    if not given:
        raise Refused(428, "precondition_required", "send If-Match with the ETag of what you have read")
    if not _ETAG.fullmatch(given):
        raise Refused(412, "precondition_failed", "If-Match is not an ETag of ours: read it anew")
    return given


def _keyed(operation: Operation, asked: Asked) -> Response:
    """The answer of an act under its Idempotency-Key."""
    request = asked.call.request
    key = request.headers.get("idempotency-key")
    if key is None and operation.keyed == "taken":
        return _response(operation, operation.handler(asked))
    if key is None:
        detail = "send one, so that the act is done once however often you ask"
        raise Invalid([{"parameter": "Idempotency-Key", "detail": detail}], 400, "idempotency_key_missing")
    if not _KEY.fullmatch(key):
        raise Invalid([{"parameter": "Idempotency-Key", "detail": "must be 1 to 255 visible ASCII characters"}], 400)

    def act(engine: Engine) -> tuple[int, bytes]:
        console = replace(asked.call.console, acts=engine)
        done = operation.handler(replace(asked, call=replace(asked.call, console=console)))
        return done.status, orjson.dumps([dict(done.headers), done.data])

    whole = b"\n".join([request.method.encode(), str(request.url.path).encode(), request.url.query.encode(), asked.call.body])
    try:
        status, kept, now = once(asked.acts, asked.settings, asked.call.principal.id, key, whole, act)
    except UnderWay as error:
        raise Refused(409, "under_way", str(error), {"Retry-After": "1"}) from None
    except OtherRequest as error:
        raise Invalid([{"parameter": "Idempotency-Key", "detail": str(error)}], name="idempotency_key_reused") from None
    headers, data = orjson.loads(kept)
    return _response(operation, Answer(data, status, headers if now else {**headers, "Idempotency-Replayed": "true"}))


def _response(operation: Operation, answer: Answer) -> Response:
    if answer.raw is not None:
        kind = StreamingResponse if not isinstance(answer.raw, bytes) else Response
        return kind(answer.raw, answer.status, dict(answer.headers), answer.headers.get("Content-Type", operation.media))
    if answer.status == 204:
        return Response(status_code=204, headers=dict(answer.headers))
    return Response(orjson.dumps(answer.data), answer.status, dict(answer.headers), JSON)
