"""The table of operations. The routes, the document and the test of who may do what are made of it."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from starlette.routing import BaseRoute

from workers.console.api import openapi
from workers.console.api.nouns import (
    access,
    audit,
    configuration,
    dead_letters,
    deliveries,
    endpoints,
    erasures,
    events,
    jobs,
    ledger,
    mailboxes,
    me,
)
from workers.console.api.operation import JSON, Answer, Asked, Operation
from workers.console.api.routing import route
from workers.console.api.shapes import Shape
from workers.console.call import Console


class Document(Shape):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


def _document(_asked: Asked) -> Answer:
    return Answer(raw=_written())


@cache
def _written() -> bytes:
    return orjson.dumps(openapi.document(OPERATIONS, version("waxseal")))


OPERATIONS: Final[Sequence[Operation]] = (
    Operation(
        "openapi",
        "GET",
        "/openapi.json",
        "viewer",
        "any",
        _document,
        "This document, as OpenAPI 3.1",
        {200: Document},
        media=JSON,
    ),
    *me.OPERATIONS,
    *events.OPERATIONS,
    *deliveries.OPERATIONS,
    *dead_letters.OPERATIONS,
    *endpoints.OPERATIONS,
    *mailboxes.OPERATIONS,
    *ledger.OPERATIONS,
    *erasures.OPERATIONS,
    *jobs.OPERATIONS,
    *audit.OPERATIONS,
    *access.OPERATIONS,
    *configuration.OPERATIONS,
)


def routes(console: Console) -> list[BaseRoute]:
    """The routes of all operations; those without a parameter in their path come first, so that no other takes theirs."""
    return [route(console, each) for each in sorted(OPERATIONS, key=lambda each: each.path.count("{"))]
