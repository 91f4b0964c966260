"""What all dashboards have in common: variables, annotations, links to each other, and the layout."""

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardDashboardTemplating,
    DashboardDashboardTime,
    DashboardLink,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
    VariableType,
)

from ops.grafana.panels import RUNBOOK, SOURCE
from ops.grafana.promql import ours, series

WIDTH: Final = 24
TAG: Final = "waxseal"


class _Event(AnnotationQuery):
    """Events that a query of Prometheus finds. Grafana reads the forms of their texts, which its models leave out."""

    def __init__(self, name: str, expr: str, colour: str, title: str, text: str, *, at_value: bool = False) -> None:
        super().__init__(name=name, datasource=SOURCE, enable=True, icon_color=colour, expr=expr)
        self._forms: dict[str, object] = {"titleFormat": title, "textFormat": text, "useValueForTime": at_value}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._forms


def framed(
    uid: str,
    title: str,
    answers: str,
    rows: Mapping[str, Sequence[Panel]],
    *,
    choices: Mapping[str, str] | None = None,
    since: str = "now-3h",
) -> Dashboard:
    """A dashboard of rows of panels; a row without a title has no heading.

    `choices`: a metric for each further variable, which offers the values of the metric's label of that name.
    """
    return Dashboard(
        uid=uid,
        title=title,
        description=answers,
        tags=[TAG],
        editable=False,
        refresh="30s",
        time=DashboardDashboardTime(since, "now"),
        graph_tooltip=DashboardCursorSync.CROSSHAIR,
        templating=DashboardDashboardTemplating(_variables(choices or {})),
        annotations=AnnotationContainer(_events()),
        links=[
            DashboardLink(
                "Waxseal",
                DashboardLinkType.DASHBOARDS,
                tooltip="The other dashboards, with the same variables and times",
                tags=[TAG],
                include_vars=True,
                keep_time=True,
            )
        ],
        panels=_laid_out(rows),
    )


def _variables(choices: Mapping[str, str]) -> list[VariableModel]:
    return [
        VariableModel(
            VariableType.DATASOURCE,
            "datasource",
            "Data source",
            query="prometheus",
            current=VariableOption(text="default", value="default"),
        ),
        _choice("job", "label_values(waxseal_build_info, job)"),
        _choice("instance", 'label_values(waxseal_build_info{job=~"$job"}, instance)'),
        *(_choice(name, f"label_values({ours(metric)}, {name})", every=".*") for name, metric in choices.items()),
        VariableModel(
            VariableType.CONSTANT,
            "runbook",
            "Runbook",
            hide=VariableHide.HIDE_VARIABLE,
            skip_url_sync=True,
            description="The page that the panels' links lead to",
            query=RUNBOOK,
            current=VariableOption(text=RUNBOOK, value=RUNBOOK),
        ),
    ]


def _choice(name: str, query: str, every: str = ".+") -> VariableModel:
    # `.*` selects series that lack the label, too.
    return VariableModel(
        VariableType.QUERY,
        name,
        name.capitalize(),
        query={"query": query, "refId": f"variable-{name}"},
        datasource=SOURCE,
        multi=True,
        include_all=True,
        all_value=every,
        current=VariableOption(selected=True, text=["All"], value=["$__all"]),
        refresh=VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=VariableSort.ALPHABETICAL_ASC,
    )


def _events() -> list[AnnotationQuery]:
    started = f"{series('process_start_time_seconds')} * 1000"
    firing = 'ALERTS{alertstate="firing", alertname=~"Waxseal.*"}'
    return [
        _Event("Deploys", started, "blue", "{{instance}} started", "{{job}}", at_value=True),
        _Event("Firing alerts", firing, "red", "{{alertname}}", "{{severity}}"),
    ]


def _laid_out(rows: Mapping[str, Sequence[Panel]]) -> list[Panel | RowPanel]:
    """All panels from left to right, a new line when one is full; ids count from 1 in this order."""
    found: list[Panel | RowPanel] = []
    top = 0
    for title, panels in rows.items():
        if title:
            found.append(RowPanel(title=title, grid_pos=GridPos(h=1, w=WIDTH, x=0, y=top), id_val=len(found) + 1))
            top += 1
        left = height = 0
        for panel in panels:
            place = panel.grid_pos or GridPos()
            if left + place.w > WIDTH:
                left, top, height = 0, top + height, 0
            place.x, place.y = left, top
            left, height = left + place.w, max(height, place.h)
            panel.id_val = len(found) + 1
            found.append(panel)
        top += height
    return found
