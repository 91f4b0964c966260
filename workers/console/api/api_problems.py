"""Errors of the API, as RFC 9457 problem details."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ops.admin.search.cursors import BadCursor
from ops.admin.search.found import BadSearch
from ops.config.apply import NeedsConfirmation
from ops.config.read_file import BadConfig
from ops.errors import Misconfigured, NotPublished, OpsError, PlaceAway, Unknown, UnknownTenant
from workers.console.call import Refused

MEDIA: Final = "application/problem+json"
MOST_ERRORS: Final = 50


class Fault(BaseModel):
    """One thing that is wrong with the request."""

    detail: str
    pointer: Annotated[str | None, Field(description="where in the body, as a JSON pointer")] = None
    parameter: Annotated[str | None, Field(description="or which parameter or header")] = None
    line: Annotated[int | None, Field(description="or which line of the file")] = None


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    type: Annotated[str, Field(pattern="^urn:waxseal:problem:[a-z-]+$")]
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] | None = None


class Invalid(Refused):
    """A request that is wrong in one place or several."""

    def __init__(self, errors: Sequence[Mapping[str, Any]], status: int = 422, name: str = "invalid") -> None:
        first = errors[0]
        where = first.get("parameter") or first.get("pointer") or ""
        super().__init__(status, name, f"{where}: {first['detail']}" if where else first["detail"])
        self.errors = [dict(each) for each in errors[:MOST_ERRORS]]


def problem(request: Request, refused: Refused) -> Response:
    """The answer to a request that was not carried out."""
    body = {
        "type": f"urn:waxseal:problem:{refused.name.replace('_', '-')}",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.args[0],
        "request_id": request.state.id,
    }
    if isinstance(refused, Invalid):
        body["errors"] = refused.errors
    headers = {**({"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}), **refused.headers}
    return Response(orjson.dumps(body), refused.status, headers, MEDIA)


def of_ops(error: OpsError) -> Refused:
    """What the client is told of an error of `ops`: by what it can do about it."""
    match error:
        case BadCursor():
            refused: Refused = Invalid([{"parameter": "cursor", "detail": str(error)}], name="bad_cursor")
        case BadSearch():
            refused = Invalid([{"parameter": "", "detail": str(error)}], name="bad_search")
        case UnknownTenant():
            refused = Refused(404, "not_found", "there is no such tenant")
        case Unknown():
            refused = Refused(404, "not_found", str(error))
        case NotPublished():
            refused = Refused(409, "not_published", str(error))
        case PlaceAway():
            refused = Refused(503, "unavailable", str(error), {"Retry-After": "30"})
        case NeedsConfirmation():
            refused = Refused(409, "needs_confirmation", f"this would {error.what}: say `give_up=true`")
        case BadConfig():
            refused = Invalid([{"line": each.line, "detail": _told(each)} for each in error.faults], name="bad_configuration")
        case Misconfigured():
            refused = Invalid([{"pointer": "", "detail": str(error)}], name="bad_configuration")
        case _:
            refused = Refused(409, "refused", str(error))
    return refused


def invalid(error: ValidationError, *, in_body: bool) -> Invalid:
    """What the client is told of a query or body that its model refuses."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return Invalid([_fault(each["loc"], each["msg"], in_body=in_body) for each in found])


def _fault(loc: Sequence[str | int], message: str, *, in_body: bool) -> Mapping[str, Any]:
    detail = message.removeprefix("Value error, ")
    if in_body:
        return {"pointer": "".join(f"/{_escaped(str(each))}" for each in loc), "detail": detail}
    return {"parameter": str(loc[0]) if loc else "", "detail": detail}


def _escaped(step: str) -> str:
    """A step of a JSON pointer (RFC 6901)."""
    return step.replace("~", "~0").replace("/", "~1")


def _told(fault: Any) -> str:
    return f"{fault.where}: {fault.what}" if fault.where else fault.what
