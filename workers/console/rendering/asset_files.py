"""The files that pages refer to, under names that hold a hash of their bytes, so that a browser may keep them for ever."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER: Final = Path(__file__).parents[1] / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its address, its media type, and its bytes."""

    url: str
    type: str
    content: bytes


def _read() -> dict[str, Asset]:
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
            found[path.name] = Asset(f"/static/{name}", _TYPES[path.suffix], content)
    return found


#: By the names of the files in `static/`.
ASSETS: Final = _read()
_BY_URL: Final = {asset.url: asset for asset in ASSETS.values()}


async def _answer(request: Request) -> Response:
    asset = _BY_URL.get(request.url.path)
    if asset is None:
        raise HTTPException(404, "there is no such file")
    return Response(asset.content, 200, {"Cache-Control": _FOR_EVER}, asset.type)


ROUTE: Final = Route("/static/{name}", _answer, methods=["GET"])
