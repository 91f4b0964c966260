"""Errors of the API, as RFC 9457 problem details."""

from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.responses import Response

from workers.console.call import Refused


def problem(request: Request, refused: Refused) -> Response:
    """The answer to a request that was not carried out."""
    body = {
        "type": f"urn:waxseal:problem:{refused.name.replace('_', '-')}",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail,
        "request_id": request.state.id,
    }
    headers = {**({"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}), **refused.headers}
    return Response(orjson.dumps(body), refused.status, headers, "application/problem+json")
