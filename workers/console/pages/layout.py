"""Renders templates: what every page is given, and the page that says why a request was not carried out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from workers.console.call import Call, Refused

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(call: Call, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """The page of a template, for the one who asks."""
    return HTMLResponse(_TEMPLATES.get_template(template).render({**values, "call": call}), status)


def refusal(request: Request, refused: Refused) -> Response:
    """The page that says why a request was not carried out, and what to do."""
    values = {"refused": refused, "request_id": request.state.id, "path": request.url.path}
    return HTMLResponse(_TEMPLATES.get_template("refused.html").render(values), refused.status, refused.headers)
