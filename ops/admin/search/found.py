"""A page of search results, and how texts that are searched for become ranges of an index."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine

from ops.admin.read_session import snapshot
from ops.admin.views import View
from ops.errors import OpsError
from pipeline.store.search import places
from pipeline.store.search.indexing import MOST_TEXT

MOST: Final = 200  # rows of one page
_LAST: Final = 0x10FFFF  # code point
_SURROGATES: Final = range(0xD800, 0xE000)


class BadSearch(OpsError):
    """What is searched for cannot be searched for; the text says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A page. `next`: the cursor of the page that follows; None if this is the last.

    `searched_to`: a search of which few events match has looked back to this time only, and goes on from there with `next`.
    `behind`: how many entries are not in the index yet, which has those up to `indexed_to`.
    """

    rows: Sequence[View] = field(default_factory=list)
    next: str | None = None
    searched_to: datetime | None = None
    behind: int = 0
    indexed_to: datetime | None = None


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only connection whose statements go along indexes, whatever the statistics of the tables say."""
    with snapshot(engine) as conn:
        places.along_indexes(conn)
        yield conn


def bounded(limit: int) -> int:
    """The number of rows of a page. Raises `BadSearch`."""
    if not 1 <= limit <= MOST:
        raise BadSearch(f"a page has 1 to {MOST} rows")
    return limit


def between(wanted: str | None) -> tuple[str | None, str | None]:
    """The range of texts that are `wanted`, or begin with it if it ends with `*`: from the first on, before the second.

    Raises `BadSearch` for what no text is.
    """
    if wanted is None:
        return None, None
    checked(wanted)
    if not wanted.endswith("*"):
        low = wanted[:MOST_TEXT]
        return low, low + "\x01"  # no text lies between, for none has a NUL
    low = wanted[:-1][:MOST_TEXT]
    return low, after_prefix(low)


def after_prefix(prefix: str) -> str:
    """The first text, by code points, behind all that begin with `prefix` and are in the index."""
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return chr(_LAST) * (MOST_TEXT + 1)
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)


def checked(text: str) -> str:
    """The text, if Postgres can have it. Raises `BadSearch`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSearch("that is not a text in Unicode") from None
    if "\x00" in text:
        raise BadSearch("no type, source, subject or id has a NUL character")
    return text


def matches(text: str | None, wanted: str | None) -> bool:
    """Whether a whole text is what is wanted, of which the index has a part."""
    if wanted is None:
        return True
    return text is not None and (text.startswith(wanted[:-1]) if wanted.endswith("*") else text == wanted)
