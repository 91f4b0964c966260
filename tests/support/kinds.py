"""What tests of the source kinds share: a source, a time, and the verdict of a kind on a message."""

from datetime import UTC, datetime

from pipeline.sources import KINDS, Unverified
from schemas.source import Source

Headers = dict[str, str]


def source(kind: str, *secrets: str, **options: str) -> Source:
    return Source("acme", "shop", kind, secrets, options=options)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def verdict(a_source: Source, headers: Headers, body: bytes, now: datetime) -> str:
    try:
        KINDS[a_source.kind].verify(a_source, headers, body, now)
    except Unverified as error:
        return error.reason
    return "verified"
