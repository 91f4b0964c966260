"""The dashboards of Grafana as their files say: panels, queries, and the expressions that Prometheus is asked."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql

from support.paths import ROOT

FOLDER = ROOT / "ops" / "grafana"
Json = dict[str, Any]
#: Every dashboard by its uid.
DASHBOARDS: dict[str, Json] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
#: What Grafana itself knows, as it would be while three hours are shown and Prometheus scrapes every 15 s.
MACROS = {"__rate_interval": "1m", "__interval": "30s", "__range": "3h"}

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class PanelQuery:
    """One query of a panel. `instant`: it is asked for the newest value only."""

    dashboard: str
    panel: str
    legend: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.legend}"

    def asked(self, **variables: str) -> str:
        """The expression that Prometheus is asked; variables without a value stand for all values."""
        return expanded(self.expr, **variables)


def panels(dashboard: Json) -> list[Json]:
    """The panels of a dashboard without the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_queries() -> list[PanelQuery]:
    """Every query of every panel of every dashboard."""
    return [
        PanelQuery(uid, panel["title"], target.get("legendFormat", ""), target["expr"], target["instant"])
        for uid, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def expanded(expr: str, **variables: str) -> str:
    """An expression without Grafana's macros and variables; a variable without a value stands for all values."""
    known = MACROS | variables
    return _VARIABLE.sub(lambda match: known.get(match[1] or match[2], ".*"), expr)


def nodes(expr: promql.Expr) -> Iterator[promql.Expr]:
    """A parsed expression and all that is in it."""
    yield expr
    inner = (getattr(expr, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector"))
    for each in (*inner, *getattr(expr, "args", ())):
        if isinstance(each, promql.Expr):
            yield from nodes(each)


def selectors(expr: promql.Expr) -> list[promql.VectorSelector]:
    """The selectors of series in an expression."""
    return [node for node in nodes(expr) if isinstance(node, promql.VectorSelector)]
