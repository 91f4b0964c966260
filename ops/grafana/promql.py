"""Expressions in PromQL. Each selects the jobs and instances that the dashboard's variables name."""

from typing import Final

SELECTED: Final = 'job=~"$job", instance=~"$instance"'
INTERVAL: Final = "$__rate_interval"


def series(metric: str, *matchers: str) -> str:
    """The selector of a metric of any process, with further matchers such as `state="open"`."""
    return f"{metric}{{{', '.join((SELECTED, *matchers))}}}"


def ours(metric: str, *matchers: str) -> str:
    """As `series`, of a metric in the table of `ops.telemetry`, without its prefix."""
    return series(f"waxseal_{metric}", *matchers)


def rate(metric: str, *matchers: str, by: str = "") -> str:
    """The increase of a counter per second, over all processes."""
    return f"{_total('sum', by)}(rate({ours(metric, *matchers)}[{INTERVAL}]))"


def increase(metric: str, window: str, *matchers: str, by: str = "") -> str:
    """The increase of a counter within a window, over all processes."""
    return f"{_total('sum', by)}(increase({ours(metric, *matchers)}[{window}]))"


def quantile(part: float, metric: str, *matchers: str, by: str = "") -> str:
    """The value under which a part of a histogram's observations lie."""
    return f"histogram_quantile({part:g}, {rate(f'{metric}_bucket', *matchers, by=', '.join(filter(None, ('le', by))))})"


def share(metric: str, *matchers: str, of: tuple[str, ...] = (), by: str = "") -> str:
    """The share that the matchers select of a counter's increase, among what `of` selects."""
    return f"{rate(metric, *of, *matchers, by=by)} / {rate(metric, *of, by=by)}"


def mean(metric: str, *matchers: str) -> str:
    """The mean of a histogram's observations."""
    return f"{rate(f'{metric}_sum', *matchers)} / {rate(f'{metric}_count', *matchers)}"


def within(bound: float, metric: str, *matchers: str) -> str:
    """The share of a histogram's observations up to a bound. Python exports `le` as a float: 30 is "30.0"."""
    edge = f'le="{float(bound)}"'
    return f"{rate(f'{metric}_bucket', *matchers, edge)} / {rate(f'{metric}_count', *matchers)}"


def largest(metric: str, *matchers: str, by: str = "") -> str:
    """A gauge's largest value: of the one process that is elected to show it, or of those that show a part of an age."""
    return f"{_total('max', by)}({ours(metric, *matchers)})"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """The sum of a gauge over all processes."""
    return f"{_total('sum', by)}({ours(metric, *matchers)})"


def age(metric: str, *matchers: str, by: str = "") -> str:
    """Seconds since the time that a gauge shows; of several, the latest counts."""
    return f"time() - {largest(metric, *matchers, by=by)}"


def or_zero(expression: str) -> str:
    """A sum, or 0 if no process shows the metric: a sum with nothing would be nothing."""
    return f"({expression} or vector(0))"


def _total(operator: str, by: str) -> str:
    return f"{operator} by ({by}) " if by else operator
