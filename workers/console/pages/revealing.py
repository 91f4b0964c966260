"""Content as pages show it, after a reason was given and recorded: text only, its first part, with everything in it visible."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from workers.console.call import Call, Refused
from workers.console.pages.page_table import field
from workers.console.pages.questions import SHORTEST_REASON

MOST_SHOWN: Final = 64 * 1024  # bytes


def reason_of(call: Call) -> str:
    """The reason that was given. Raises `Refused` if it says nothing, or if the last login was long ago."""
    call.must_be_fresh()
    reason = field(call, "reason", 500)
    if len(reason) < SHORTEST_REASON:
        raise Refused(422, "reason", "say why you want to see it, in a few words: the audit keeps it")
    return reason


def shown(body: bytes, media_type: str | None, headers: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A body for the template."""
    first = body[:MOST_SHOWN]
    text = first.decode(errors="replace")
    return {
        "type": media_type,
        "size": len(body),
        "headers": {name: str(value) for name, value in (headers or {}).items()},
        "text": text,
        "formatted": _formatted(body) if len(body) <= MOST_SHOWN else None,
        "cut": len(body) > MOST_SHOWN,
        "binary": "\ufffd" in text and not _is_text(body, len(first)),
    }


def _is_text(body: bytes, cut: int) -> bool:
    """Whether it is UTF-8, but for a character that the cut may have halved."""
    try:
        body[: max(0, cut - 3)].decode()
    except UnicodeDecodeError as error:
        return error.start > cut - 8
    return cut < len(body)


def _formatted(body: bytes) -> str | None:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if isinstance(found, dict | list) else None
