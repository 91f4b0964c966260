"""Identifiers of new spans and traces, and the clock that spans are timed by."""

import random
import time


def fresh_span_id() -> str:
    """An identifier of a new span."""
    return f"{random.getrandbits(64) or 1:016x}"


def fresh_trace_id() -> str:
    """An identifier of a new trace."""
    return f"{random.getrandbits(128) or 1:032x}"


def lasted(seconds: float) -> tuple[int, int]:
    """The start and end, in Unix nanoseconds, of what took so many seconds until now."""
    now = time.time_ns()
    return now - int(seconds * 1e9), now
