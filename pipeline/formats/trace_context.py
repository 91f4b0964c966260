"""W3C Trace Context, levels 1 and 2: the headers `traceparent` and `tracestate`."""

import re
from collections.abc import Mapping
from typing import Any, Final

from schemas.trace import TraceContext

PARENT: Final = "traceparent"
STATE: Final = "tracestate"

# §3.2: version ff is invalid, as are all-zero ids; versions above 00 may have more, after another hyphen.
_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01
_RANDOM: Final = 0x02

# §3.3.1: at most 32 members, which may be empty. 512 characters are what every participant must pass on. Keys that occur
# twice are left to those that they belong to. Level 2 lets "@" be anywhere in a key but at its start.
_LONGEST_STATE: Final = 512
_MOST_MEMBERS: Final = 32
_MEMBER: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


def is_traceparent(value: Any) -> bool:
    """Whether `value` is the text of a valid traceparent."""
    if not isinstance(value, str):
        return False
    match = _PARENT.fullmatch(value)
    return match is not None and not (match[1] == "00" and match[5])


def is_tracestate(value: Any) -> bool:
    """Whether `value` is the text of a valid tracestate that is not empty and not too long to be kept."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_STATE:
        return False
    members = [member for each in value.split(",") if (member := each.strip(" \t"))]
    return 0 < len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))


def parsed(parent: Any, state: Any = None) -> TraceContext | None:
    """The span that the two headers name; None if `parent` is invalid. An invalid `state` is left out."""
    if not is_traceparent(parent):
        return None
    _, trace_id, span_id, rest = parent.split("-", 3)
    flags, kept = int(rest[:2], 16), state if is_tracestate(state) else ""
    return TraceContext(trace_id, span_id, bool(flags & _SAMPLED), kept, bool(flags & _RANDOM))


def traceparent(context: TraceContext) -> str:
    """The header that names a span to others."""
    return f"00-{context.trace_id}-{context.span_id}-{_SAMPLED * context.sampled | _RANDOM * context.random:02x}"


def adopt(attributes: dict[str, str], parent: Any, state: Any) -> None:
    """Add the two headers' values to an event that has no trace context of its own. What is invalid is left out."""
    if PARENT not in attributes and is_traceparent(parent):
        attributes[PARENT] = parent
        if is_tracestate(state):
            attributes[STATE] = state


def given(attributes: Mapping[str, Any]) -> TraceContext | None:
    """The span that the sender of an event named in its attributes; None if it named none."""
    if PARENT not in attributes:
        return None
    return parsed(attributes[PARENT], attributes.get(STATE))


def named(headers: Mapping[str, Any]) -> TraceContext | None:
    """The span that a message's headers name: that in which it was published, or else that in the event's attributes."""
    if PARENT in headers:
        return parsed(headers[PARENT], headers.get(STATE))
    return parsed(headers.get(f"cloudEvents:{PARENT}"), headers.get(f"cloudEvents:{STATE}"))


def trace_id_of(fingerprint: bytes) -> str:
    """The trace of an event whose sender named none.

    It is the fingerprint, which is as uniform as a random number. So nothing has to be stored for retries, replays and dead
    letters to continue the trace, and duplicates are in it too.
    """
    return fingerprint.hex()


def entry_span_id(fingerprint: bytes) -> str:
    """The span in which an event was appended: the parent of all that happens to it later."""
    return fingerprint[:8].hex()
