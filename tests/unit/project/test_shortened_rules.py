"""The fire drill's rules are those of production, in quick motion: nothing in them differs but their times."""

import re

import promql_parser as promql
import pytest
from ruamel.yaml import YAML

from ops.prometheus import RULES
from support.telemetry.dashboards import nodes
from support.telemetry.shortened import Motion

GROUPS = [group for path in RULES for group in YAML(typ="safe").load(path)["groups"]]
EVERY = [rule for group in GROUPS for rule in group["rules"]]


def plain(expr: str) -> str:
    """The expression as the parser writes it, with matchers in order and products of numbers as one number."""
    written = promql.parse(promql.parse(expr).prettify()).prettify()
    return re.sub(r"\b([\d.]+) \* ([\d.]+)\b", lambda match: f"{float(match[1]) * float(match[2]):g}", written)


def ranges(expr: str) -> list[float]:
    return [node.range.total_seconds() for node in nodes(promql.parse(expr)) if isinstance(node, promql.MatrixSelector)]


@pytest.mark.parametrize(
    ("given", "shorter"),
    [
        ("rate(x[5m])", "rate(x[5s])"),
        ("increase(x[1h30m]) > 300", "increase(x[90s]) > 300"),
        ('sum by (a) (rate(x{b="[5m]"}[10m])) > 0', 'sum by (a) (rate(x{b="[5m]"}[10s])) > 0'),
        ("max(x_age_seconds) > 5 * 86400", "max(x_age_seconds) > 7200"),
        ("time() - max(x_timestamp_seconds) > 26 * 3600", "time() - max(x_timestamp_seconds) > 1560"),
        ("x_seconds > 300 and on (a) y > 300", "x_seconds > 5 and on (a) y > 300"),
        ("x_seconds < -300", "x_seconds < -5"),
        (
            "histogram_quantile(0.9, rate(x_seconds_bucket[5m])) > 120",
            "histogram_quantile(0.9, rate(x_seconds_bucket[5s])) > 4",
        ),
        ("x_seconds > 60", "x_seconds > 4"),  # not less than that
        ("x_seconds > 3", "x_seconds > 3"),  # nor longer than it was
        ("predict_linear(x[1h], 4 * 3600) > 100", "predict_linear(x[60s], 240) > 100"),
        ("x_seconds / y_seconds > 300", "x_seconds / y_seconds > 300"),  # a ratio
        ("a unless on () (b + c) > 0 or d", "a unless on () (b + c) > 0 or d"),
        ("x > bool 1", "x > bool 1"),
        ('label_replace(x, "a", "$1", "b", "(.*)")', 'label_replace(x, "a", "$1", "b", "(.*)")'),
    ],
)
def test_ranges_and_limits_of_what_is_in_seconds_become_shorter_and_nothing_else(given: str, shorter: str) -> None:
    assert plain(shorter) == plain(Motion(60, least=4).expression(given))


def test_what_could_not_be_shortened_is_refused() -> None:
    for expr in ("rate(x[5m] offset 5m)", "max_over_time(x[1h:5m])"):
        with pytest.raises(NotImplementedError):
            Motion(60).expression(expr)


def test_at_the_pace_of_production_every_rule_is_what_it_was() -> None:
    assert [plain(rule["expr"]) for rule in EVERY] == [plain(Motion(1).expression(rule["expr"])) for rule in EVERY]


def test_every_window_and_every_wait_becomes_shorter_by_the_same_factor() -> None:
    for rule in EVERY:
        shorter = Motion(60).rule(rule)
        assert [each / 60 for each in ranges(rule["expr"])] == ranges(shorter["expr"])
        assert rule.keys() == shorter.keys()
        if "for" in rule:
            assert ranges(f"x[{rule['for']}]")[0] / 60 == ranges(f"x[{shorter['for']}]")[0]
    assert {"1000ms"} == {Motion(60).group(group)["interval"] for group in GROUPS if "interval" in group}
