"""/metrics of one process: the metrics that it feeds by `ops.telemetry.table`, and those of any Python process.

A process does not show the metrics that others feed: their zeros would say nothing, and twice the series are scraped twice as
long.
"""

from collections.abc import Iterable

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, Metric, generate_latest
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

    def text(self) -> bytes:
        """The current values in Prometheus' text format."""
        return generate_latest(self)

    def _collectors(self) -> Iterable[Collector]:
        yield from (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
        yield from (row.metric for row in TABLE.values() if self._process is None or self._process in row.by)


EXPOSITION = Exposition()
