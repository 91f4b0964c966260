"""The page ops/docs/metrics.md, generated from the table of metrics."""

from typing import Final

from ops.telemetry import table  # noqa: F401 - defines the metrics
from ops.telemetry.metric_kinds import TABLE, Row

_TOP: Final = """\
# Metrics

Every process serves its metrics at /metrics, on `WAXSEAL_METRICS_PORT`, as Prometheus text, or as OpenMetrics to who accepts
that; the ingress serves them on its own port. A process shows the metrics that it feeds, and those of any Python process
(`process_…`, `python_…`). The relay's figures of the whole system are shown by one elected relay only.

Counters and histograms with a closed set of label values have all their series from the start. The series of a gauge appear
when it is first known. None has a label for tenants, endpoints or subjects, because their number has no bound.

What operators should know of some of them:

- `waxseal_stage_oldest_age_seconds` shows trouble first. For the stage `inbox`, an ingest process shows how old the oldest
  message is that it holds, and the relay how long a message of its own waits there; of both the larger counts. `unclaimed` and
  `retries` leave out endpoints that are held back by their breaker, their own wish or their rate limit. `in_flight` counts a
  first try from when it was planned.
- `waxseal_queue_messages` with the state `ready` comes from the relay, and with `unacked` from each process that consumes: add
  them up.
- `waxseal_chain_…` are of `waxseal verifier`, or of `waxseal verify` without a tenant: run one of them. The label
  `chain` has one value, `all`.
- `waxseal_broker_alarm` is what RabbitMQ says to publishers. Its own figures of memory and disk are in its Prometheus plugin.
- `waxseal_process_restarts_total` is of the supervisor of `waxseal up`. Where systemd or Kubernetes restarts processes, look at
  changes of `process_start_time_seconds`.

This page is generated: `waxseal metrics --markdown`.

| metric | kind | labels | unit | fed by | meaning |
|---|---|---|---|---|---|
"""
_LONG: Final = """
## Labels with many values

"""
_MANY: Final = 12  # values; more are listed below the table


def metrics_page() -> str:
    """Return the page: every metric with its kind, labels, unit, the processes that feed it, and its meaning."""
    return _TOP + "".join(map(_row, TABLE.values())) + _LONG + "".join(sorted(_long_sets()))


def _long_sets() -> set[str]:
    sets = {(row.name, name): values for row in TABLE.values() for name, values in row.labels.items() if len(values) > _MANY}
    metrics: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (metric, name), values in sets.items():
        metrics.setdefault((name, values), []).append(f"`{metric}`")
    return {f"- `{name}` of {', '.join(of)}: {', '.join(values)}\n" for (name, values), of in metrics.items()}


def _row(row: Row) -> str:
    labels = "; ".join(f"`{name}`{_values(values)}" for name, values in row.labels.items())
    return f"| `{row.name}` | {row.kind} | {labels} | {row.unit} | {', '.join(row.by)} | {row.meaning} |\n"


def _values(values: tuple[str, ...]) -> str:
    if not values:
        return ""
    return f" ({len(values)} values)" if len(values) > _MANY else f": {', '.join(values)}"
