"""Kind none: anybody who can reach the ingress may send. It must be configured by name."""

from datetime import datetime

from pipeline.sources.kind import Headers, Kind, unknown_options
from schemas.source import Source


def verify(_source: Source, _headers: Headers, _body: bytes, _now: datetime) -> None:
    """Accepts every message."""


def check(source: Source) -> list[str]:
    """A secret would be ignored, so a source that has one was meant to be of another kind."""
    return [
        *unknown_options(source),
        *(["kind none checks no secret: remove it, or choose another kind"] if source.secrets else []),
    ]


def sign(_source: Source, _headers: Headers, _body: bytes, _now: datetime) -> dict[str, str]:
    """No headers: there is no signature."""
    return {}


KIND = Kind(verify, check, sign)
