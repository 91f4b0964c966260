"""/metrics of one process: the metrics that it feeds by `ops.telemetry.table`, and those of any Python process.

A process does not show the metrics that others feed: their zeros would say nothing, and twice the series are scraped twice as
long.
"""

from collections.abc import Iterable

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPEN_METRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

from ops.telemetry import table  # noqa: F401 - defines the metrics
from ops.telemetry.metric_kinds import TABLE


class Exposition:
    """What /metrics of this process shows: every metric, until it is said which process this is."""

    def __init__(self) -> None:
        self._process: str | None = None

    def of(self, process: str | None) -> None:
        """Show only what `process` feeds from now on; with None, every metric."""
        self._process = process

    def collect(self) -> Iterable[Metric]:
        """The current values, in the order of the table."""
        for collector in self._collectors():
            yield from collector.collect()

    def text(self, accept: str = "") -> tuple[str, bytes]:
        """The current values with their content type: OpenMetrics with exemplars to who accepts it, else plain text."""
        if OPEN_METRICS.partition(";")[0] in accept:
            return OPEN_METRICS, generate_open_metrics(_Apart(self))  # type: ignore[no-untyped-call]
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self)

    def _collectors(self) -> Iterable[Collector]:
        yield from (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
        yield from (row.metric for row in TABLE.values() if self._process is None or self._process in row.by)


class _Apart:
    """The same for OpenMetrics, where a counter and another metric must not differ by `_total` alone.

    Such a counter, `dead_letters_total` beside `dead_letters`, is shown under its whole name as of unknown type.
    """

    def __init__(self, shown: Exposition) -> None:
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        families = list(self._shown.collect())
        others = {family.name for family in families if family.type != "counter"}
        for family in families:
            if family.type == "counter" and family.name in others:
                apart = Metric(f"{family.name}_total", family.documentation, "unknown")
                apart.samples = family.samples
                yield apart
            else:
                yield family


EXPOSITION = Exposition()
