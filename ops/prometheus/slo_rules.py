"""Writes slo.yml, the recording rules and burn-rate alerts of each objective: `python -m ops.prometheus.slo_rules`.

The windows and factors are those of the SRE workbook, chapter 5: a page when 2 % of the budget of 30 days is spent in an hour,
or 5 % in six hours; a ticket when 10 % is spent in a day, or in three. The short window ends the alert soon after the fault.
"""

from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML

from ops.prometheus import FOLDER
from ops.telemetry.metric_kinds import OBJECTIVES as THRESHOLDS

#: The error ratio over a window, and the failures in one: a quiet site spends its budget with a single failure.
RATIO: Final = "waxseal:sli_error:ratio_rate{window}"
FAILED: Final = "waxseal:sli_failed:increase{window}"
LEAST_FAILURES: Final = 10

_DELAY: Final = "waxseal_delivery_first_attempt_delay_seconds"
FIRST_ATTEMPT_SECONDS: Final = THRESHOLDS[_DELAY]  # 99 % of first attempts start within this

_HEAD: Final = "# Written by `python -m ops.prometheus.slo_rules`: change that, not this file.\n"


@dataclass(frozen=True)
class Objective:
    """What is promised: at most `budget` of all events fail. In the expressions, `{f}` is the function and `{w}` the window."""

    name: str
    alert: str
    budget: float
    failed: str
    all: str
    says: str


@dataclass(frozen=True)
class Burn:
    """A rate of spending the budget that is too high, if both windows show it."""

    factor: float
    long: str
    short: str
    wait: str
    severity: str


# Matches both spellings of the bound: "30.0" as Python exports it, and "30" as newer servers store it.
_IN_TIME: Final = f'le=~"{FIRST_ATTEMPT_SECONDS:g}(\\\\.0)?"'

OBJECTIVES: Final = (
    Objective(
        "ingest_availability",
        "WaxsealIngestBudgetBurn",
        0.001,
        'sum({f}(waxseal_ingest_messages_total{{outcome="error"}}[{w}]))',
        'sum({f}(waxseal_ingest_messages_total{{outcome!="rejected"}}[{w}]))',
        "webhooks get 5xx answers that their senders have to repeat",
    ),
    Objective(
        "delivery_platform_success",
        "WaxsealDeliveryBudgetBurn",
        0.001,
        'sum({f}(waxseal_delivery_attempts_total{{outcome="failed",fault="platform"}}[{w}]))',
        "sum({f}(waxseal_delivery_attempts_total[{w}]))",
        "attempts to deliver fail by our own fault, not by that of the endpoints",
    ),
    Objective(
        "first_attempt_freshness",
        "WaxsealFirstAttemptBudgetBurn",
        0.01,
        f"(sum({{f}}({_DELAY}_count[{{w}}])) - sum({{f}}({_DELAY}_bucket{{{{{_IN_TIME}}}}}[{{w}}])))",
        f"sum({{f}}({_DELAY}_count[{{w}}]))",
        f"first attempts start more than {FIRST_ATTEMPT_SECONDS:g} s after their event was recorded",
    ),
)
BURNS: Final = (
    Burn(14.4, "1h", "5m", "2m", "page"),
    Burn(6, "6h", "30m", "15m", "page"),
    Burn(3, "1d", "2h", "1h", "ticket"),
    Burn(1, "3d", "6h", "3h", "ticket"),
)
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def rules() -> dict[str, Any]:
    """The groups of slo.yml."""
    recorded = [rule for objective in OBJECTIVES for window in WINDOWS for rule in _recorded(objective, window)]
    alerts = [_alert(objective, burn) for objective in OBJECTIVES for burn in BURNS]
    return {
        "groups": [
            {"name": "waxseal-slo-recording", "interval": "1m", "rules": recorded},
            {"name": "waxseal-slo-alerts", "rules": alerts},
        ]
    }


def text() -> str:
    """The text of slo.yml."""
    yaml, out = YAML(), StringIO()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(rules(), out)
    return _HEAD + out.getvalue()


def _recorded(objective: Objective, window: str) -> list[dict[str, Any]]:
    failed, every = (expression.format(f="rate", w=window) for expression in (objective.failed, objective.all))
    ratio = {"record": RATIO.format(window=window), "expr": f"{failed} / {every}", "labels": {"slo": objective.name}}
    if window not in {burn.long for burn in BURNS}:
        return [ratio]
    count = objective.failed.format(f="increase", w=window)
    return [ratio, {"record": FAILED.format(window=window), "expr": count, "labels": {"slo": objective.name}}]


def _alert(objective: Objective, burn: Burn) -> dict[str, Any]:
    slo, threshold = f'{{slo="{objective.name}"}}', f"{burn.factor:g} * {objective.budget:g}"
    return {
        "alert": objective.alert,
        "expr": f"{RATIO.format(window=burn.long)}{slo} > {threshold} "
        f"and on (slo) {RATIO.format(window=burn.short)}{slo} > {threshold} "
        f"and on (slo) {FAILED.format(window=burn.long)}{slo} >= {LEAST_FAILURES}",
        "for": burn.wait,
        "labels": {"severity": burn.severity, "slo": objective.name, "long": burn.long, "short": burn.short},
        "annotations": {
            "summary": f"{objective.name}: the error budget burns at {burn.factor:g} times the rate that it can last",
            "description": f"{{{{ $value | humanizePercentage }}}} failed in {burn.long}; {objective.budget * 100:g} % may: "
            f"{objective.says}.",
            "runbook_url": f"ops/docs/runbook.md#{objective.alert.lower()}",
            "dashboard_url": "/d/waxseal-slo",
        },
    }


if __name__ == "__main__":
    (FOLDER / "slo.yml").write_text(text(), encoding="utf-8")
