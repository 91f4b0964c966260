"""Endpoints over HTTP: the target is a URL alone, which has a column of its own in the database."""

from typing import Final
from urllib.parse import urlsplit

from schemas.config.transport import Dialled, Transport
from schemas.config.values import Url


def _dials(url: str) -> list[Dialled]:
    return [((), urlsplit(url).hostname or "")]


TRANSPORT: Final = Transport("http", "url", Url, signed=True, dials=_dials, proxied=True)
