"""What would be exported, for tests without a collector."""

from dataclasses import dataclass, field
from typing import Any

from ops.telemetry.tracing.sampling import sampling
from schemas.trace import TraceContext


@dataclass
class Recorded:
    """A span, as the caller gave it."""

    name: str
    context: TraceContext
    parent_id: str
    attributes: dict[str, Any]
    kind: str
    links: tuple[TraceContext, ...]
    error: str | None


@dataclass
class Recorder:
    """In place of `Spans`."""

    share: str = "1"
    sampler: str = "parentbased_traceidratio"
    spans: list[Recorded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sampling = sampling(self.sampler, self.share)

    def record(
        self,
        name: str,
        context: TraceContext,
        parent_id: str,
        times: tuple[int, int],
        attributes: dict[str, Any],
        *,
        kind: str = "internal",
        links: Any = (),
        error: str | None = None,
    ) -> None:
        assert 0 < times[0] <= times[1]
        self.spans.append(Recorded(name, context, parent_id, attributes, kind, tuple(links), error))
