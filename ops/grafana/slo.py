"""The objectives: how much of each error budget is left, and how fast it burns."""

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.frame import framed
from ops.grafana.panels import Limits, Text, lines, number

#: A window of the recorded error ratio, and the factor at which its burning alerts.
BURNS: Final = {"1h": 14.4, "6h": 6.0, "3d": 1.0}


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective `name` of the recording rules: at most `budget` of all events fail."""

    name: str
    title: str
    budget: float
    says: str
    act: str
    alert: str


OBJECTIVES: Final = (
    Objective(
        "ingest_availability",
        "Intake",
        0.001,
        "99.9 % of what is sent to Waxseal is answered without an error of ours.",
        "look at the inbox, RabbitMQ and the ingress on the dashboard Overview",
        "WaxsealIngestBudgetBurn",
    ),
    Objective(
        "delivery_platform_success",
        "Delivery",
        0.001,
        "99.9 % of attempts to deliver do not fail by our own fault.",
        "see on the dashboard Delivery which transport fails, then the log of `deliver`",
        "WaxsealDeliveryBudgetBurn",
    ),
    Objective(
        "first_attempt_freshness",
        "First attempt",
        0.01,
        "99 % of first attempts start within 30 s of their event's record.",
        "see on the dashboard Workers whether the pool is saturated, and add `deliver` processes",
        "WaxsealFirstAttemptBudgetBurn",
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-slo",
        "Waxseal / Objectives",
        "Is what was promised being kept, and for how long if it goes on like this?",
        {objective.title: _row(objective) for objective in OBJECTIVES},
        since="now-24h",
    )


def budget_left(objective: Objective, *, size: tuple[int, int] = (3, 4)) -> Panel:
    """How much of an objective's budget of 30 days is left; below 0 if it is spent."""
    return number(
        Text(
            f"{objective.title} budget left",
            f"{objective.says} Of 30 days, this share of the failures allowed is left.",
            objective.act,
            objective.alert,
        ),
        f"1 - {_failed_of_30_days(objective)} / {objective.budget:g}",
        "percentunit",
        Limits(0.25, 0, falling=True),
        size=size,
        course=False,
    )


def _row(objective: Objective) -> list[Panel]:
    kept = number(
        Text(
            f"{objective.title}: kept in 30 days",
            f"{objective.says} Each minute with traffic counts the same.",
            objective.act,
            objective.alert,
        ),
        f"1 - {_failed_of_30_days(objective)}",
        "percentunit",
        Limits(round(1 - objective.budget / 2, 6), 1 - objective.budget, falling=True),
        size=(4, 8),
        decimals=3,
        course=False,
    )
    burning = [
        lines(
            Text(
                f"{objective.title}: burn rate of {window}",
                f"How many times faster than over 30 days the budget is spent; from {factor:g} on it alerts.",
                objective.act,
                objective.alert,
            ),
            {window: f"{_ratio(window, objective)} / {objective.budget:g}"},
            "none",
            Limits(factor / 2, factor),
            size=(width, 8),
        )
        for (window, factor), width in zip(BURNS.items(), (6, 5, 5), strict=True)
    ]
    return [kept, budget_left(objective, size=(4, 8)), *burning]


def _failed_of_30_days(objective: Objective) -> str:
    # Minutes without traffic have no ratio; the comparison leaves them out.
    return f"avg_over_time(({_ratio('5m', objective)} >= 0)[30d:1m])"


def _ratio(window: str, objective: Objective) -> str:
    return f'waxseal:sli_error:ratio_rate{window}{{slo="{objective.name}"}}'
