"""A span's identity, as it travels between processes (W3C Trace Context)."""

from dataclasses import dataclass


@dataclass(slots=True)
class TraceContext:
    """A span of a trace. Do not modify. `span_id` is empty where the trace has no span yet: the first one becomes its root."""

    trace_id: str  # 32 lower-case hex digits, not all zero
    span_id: str  # 16
    sampled: bool  # whether whoever began the trace records it
    state: str = ""  # tracestate, as received
    random: bool = False  # whether whoever began the trace says that its id is random
