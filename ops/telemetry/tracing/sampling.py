"""Which traces are recorded: the samplers of OTEL_TRACES_SAMPLER, as one comparison.

OpenTelemetry's own samplers decide the same (a test compares them), but take as long as a tenth of an event.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pipeline.formats.trace_context import given, trace_id_of
from schemas.trace import TraceContext

_ALL: Final = 1 << 64
_FOLLOW: Final = "parentbased_"
DEFAULT: Final = "parentbased_always_on"

_SHARES: Final[Mapping[str, Callable[[float], float]]] = {
    "always_on": lambda _share: 1.0,
    "always_off": lambda _share: 0.0,
    "traceidratio": lambda share: share,
}
SAMPLERS: Final = tuple(prefix + name for prefix in (_FOLLOW, "") for name in _SHARES)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Records traces whose id's lower 64 bits are below `bound`; with `follows`, what a caller began as the caller decided."""

    bound: int = _ALL
    follows: bool = True

    def of(self, trace_id: str, parent: TraceContext | None = None) -> bool:
        """Whether a span of the trace is recorded."""
        if parent is not None and self.follows:
            return parent.sampled
        return int(trace_id[16:], 16) < self.bound

    @property
    def threshold(self) -> bytes:
        """The bound, to be compared with the last eight bytes of a fingerprint."""
        return b"\xff" * 9 if self.bound >= _ALL else self.bound.to_bytes(8, "big")

    def of_event(self, fingerprint: bytes, attributes: Mapping[str, str]) -> TraceContext:
        """The trace of an event, and the span in it that its sender named, if any; `sampled` says whether it is recorded here.

        Gives the same for the event at any time and in any process with the same settings.
        """
        parent = given(attributes)
        if parent is None:
            trace_id = trace_id_of(fingerprint)
            return TraceContext(trace_id, "", self.of(trace_id))
        sampled = self.of(parent.trace_id, parent)
        return parent if sampled == parent.sampled else replace(parent, sampled=sampled)


def sampling(name: str, argument: str) -> Sampling:
    """The sampler of that name. Raises `ValueError` for one that is not known, and for a share that is not from 0 to 1."""
    chosen = name.strip().lower() or DEFAULT
    if chosen not in SAMPLERS:
        raise ValueError(f"OTEL_TRACES_SAMPLER: {name!r} is not one of {', '.join(SAMPLERS)}")
    try:
        share = float(argument or 1.0)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG: {argument!r} is not a share from 0 to 1")
    return Sampling(round(_SHARES[chosen.removeprefix(_FOLLOW)](share) * _ALL), chosen.startswith(_FOLLOW))
