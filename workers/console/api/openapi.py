"""The OpenAPI 3.1 document, made of the table of operations and pydantic's JSON schemas."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from workers.console.api.api_problems import MEDIA, Problem
from workers.console.api.operation import BYTES, JSON, Operation
from workers.console.api.paths import IN_PATH, PREFIX

TITLE: Final = "Waxseal"
_REF: Final = "#/components/schemas/{model}"
_NUMBERS: Final = ("seq", "id")
_PROBLEMS: Final = "#/components/responses/{}"
_LINK: Final = {"description": 'the next page: rel="next"', "schema": {"type": "string"}}
_WHEN: Final[Mapping[int, str]] = {
    400: "The request is malformed, or lacks its Idempotency-Key",
    401: "Nobody is known by what was sent: a token is needed",
    403: "This needs another role",
    404: "There is no such thing, or you do not see it",
    409: "It cannot be done as things are",
    412: "It was changed since you have read it",
    413: "The body is too large",
    415: "The body is of another type",
    422: "A parameter or a member of the body is not as described",
    428: "If-Match is needed",
    429: "Too often",
    503: "The database, or what it needs besides, does not answer in time",
}


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document of these operations."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(PREFIX + each.path, {})[each.method.lower()] = _operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version,
            "description": "What the commands of `waxseal` show and do. Times are RFC 3339. Answers may get more members.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(each) for each in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {str(status): _problem(status) for status in _WHEN},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`waxseal token new` makes one"}},
        },
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    sent = {each.body for each in operations if each.body is not None}
    answered = {model for each in operations for model in each.answers.values() if model is not None} | {Problem}
    wanted = [*((model, "validation") for model in sent), *((model, "serialization") for model in answered)]
    _, found = models_json_schema(sorted(wanted, key=lambda each: each[0].__name__), ref_template=_REF)  # type: ignore[arg-type]
    return dict(sorted(found.get("$defs", {}).items()))


def _operation(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": " ".join(filter(None, [operation.description, _needs(operation)])),
        "tags": [_tag(operation)],
        "parameters": [*_in_path(operation), *_in_query(operation.query), *_headers(operation)],
        "responses": {
            **{str(status): _answer(operation, status, model, schemas) for status, model in operation.answers.items()},
            **{str(status): {"$ref": _PROBLEMS.format(status)} for status in operation.statuses},
        },
    }
    if operation.body is not None:
        required = any(each.is_required() for each in operation.body.model_fields.values())
        described["requestBody"] = {"required": required, "content": {JSON: {"schema": _ref(operation.body)}}}
    elif operation.body_media:
        content = {media: {"schema": _text(media)} for media in operation.body_media}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _needs(operation: Operation) -> str:
    where = {"tenant": "for the tenant", "all": "for all tenants", "any": "for any tenant"}[operation.scope]
    needs = f"Needs the role {operation.role} {where}."
    return f"{needs} By a session, within 5 minutes after a login." if operation.fresh else needs


def _tag(operation: Operation) -> str:
    steps = [step for step in operation.path.split("/") if step and not step.startswith("{")]
    return steps[1] if steps[0] == "tenants" and len(steps) > 1 else steps[0]


def _in_path(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        schema: dict[str, Any] = {"type": "string", "pattern": f"^{IN_PATH[name]}$"}
        if name in _NUMBERS:
            schema = {"type": "integer", "minimum": 1 if name == "id" else 0, "maximum": 10**18 - 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


@cache
def _in_query(model: type[BaseModel]) -> tuple[dict[str, Any], ...]:
    """The fields of a query, inline: of a parameter that may be left out, null is not a value."""
    schema = model.model_json_schema(ref_template=_REF)
    needed, found = schema.get("required", ()), []
    for name, each in schema.get("properties", {}).items():
        plain = {key: value for key, value in each.items() if key not in ("title", "description")}
        kinds = [kind for kind in plain.pop("anyOf", ()) if kind != {"type": "null"}]
        told = each.get("description") or next((kind.pop("description") for kind in kinds if "description" in kind), None)
        if kinds:
            plain = {**plain, **kinds[0]}
        if plain.get("default", ...) is None:
            del plain["default"]
        parameter = {"name": name, "in": "query", "required": name in needed, "schema": plain}
        found.append({**parameter, "description": told} if told else parameter)
    return tuple(found)


def _headers(operation: Operation) -> Iterator[dict[str, Any]]:
    if operation.keyed != "no":
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        told = "of your choice, new for each act: asking again with the same one gets the same answer, for 24 hours"
        needed = operation.keyed == "required"
        yield {"name": "Idempotency-Key", "in": "header", "required": needed, "schema": schema, "description": told}
    if operation.if_match:
        schema = {"type": "string", "pattern": '^"[!#-~]{1,200}"$'}
        yield {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "schema": schema,
            "description": "the ETag of what you read",
        }


def _answer(operation: Operation, status: int, model: Any, schemas: Mapping[str, Any]) -> dict[str, Any]:
    told = HTTPStatus(status).phrase
    if status == 204:
        return {"description": told}
    headers: dict[str, Any] = {}
    if model is None:
        media = operation.media.partition(";")[0]
        return {"description": told, "content": {media: {"schema": _text(media)}}}
    if "next" in schemas[model.__name__].get("properties", {}):
        headers["Link"] = _LINK
    if status in (201, 202):
        headers["Location"] = {"description": "where it is", "schema": {"type": "string"}}
    if operation.id == "show_configuration":
        headers["ETag"] = {"description": "for If-Match", "schema": {"type": "string"}}
    answer = {"description": told, "content": {JSON: {"schema": _ref(model)}}}
    return {**answer, "headers": headers} if headers else answer


def _text(media: str) -> dict[str, str]:
    return {"type": "string", "format": "binary"} if media == BYTES else {"type": "string"}


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {"description": _WHEN[status], "content": {MEDIA: {"schema": _ref(Problem)}}}
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if status in (429, 503):
        found["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
