"""Pages for those who have not logged in yet."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import HTMLResponse, Response

from workers.console.rendering.templates import page


def screen(template: str, values: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The page of a template, for nobody in particular."""
    return HTMLResponse(page(template, dict(values)), status, headers)
