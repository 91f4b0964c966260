"""Panels: each has a unit, a text that ends in what to do, limits if it can be wrong, and a link into the runbook."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.models import bargauge, common, heatmap, stat, table, timeseries
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DashboardLink,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColor,
    FieldColorModeId,
    FieldConfig,
    FieldConfigSource,
    GridPos,
    MatcherConfig,
    Panel,
    Threshold,
    ThresholdsConfig,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import Dataquery, PromQueryFormat

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOK: Final = "ops/docs/runbook.md"  # the dashboards' variable `runbook`

Queries = Mapping[str, str]
"""Expressions by their legends, in which `{{label}}` stands for the label's value."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a panel says: its title, what it shows, what to do when it is red or looks wrong.

    The section of the runbook that says more is that of `alert`.
    """

    title: str
    shows: str
    act: str
    alert: str


@dataclass(frozen=True, slots=True)
class Limits:
    """From which value on a panel is yellow, and from which red; if they are `falling`, below which value."""

    yellow: float
    red: float
    falling: bool = False

    def steps(self) -> list[Threshold]:
        """The colours, from the lowest values to the highest."""
        if self.falling:
            steps = [Threshold(None, "red"), Threshold(self.red, "yellow"), Threshold(self.yellow, "green")]
        else:
            steps = [Threshold(None, "green"), Threshold(self.yellow, "yellow"), Threshold(self.red, "red")]
        return steps if self.yellow != self.red else [steps[0], steps[2]]


def number(
    text: Text,
    query: str,
    unit: str,
    limits: Limits | None = None,
    *,
    size: tuple[int, int] = (3, 4),
    decimals: int | None = None,
    course: bool = True,
) -> Panel:
    """One number, the newest, with its `course` in the background unless that is dear to compute."""
    options = stat.Options(
        color_mode=common.BigValueColorMode.BACKGROUND if limits else common.BigValueColorMode.VALUE,
        reduce_options=_newest(),
    )
    panel = _panel("stat", text, {"": query}, unit, limits, size, options)
    if not course:
        options.graph_mode = common.BigValueGraphMode.NONE
        panel.targets = [_query("A", "", query, instant=True)]
    if decimals is not None and panel.field_config is not None:
        panel.field_config.defaults.decimals = decimals
    return panel


def lines(
    text: Text,
    queries: Queries,
    unit: str,
    limits: Limits | None = None,
    *,
    size: tuple[int, int] = (12, 8),
    stacked: bool = False,
    log: bool = False,
) -> Panel:
    """Lines over time; `stacked` ones add up; a `log` axis shows seconds and days at once."""
    custom = timeseries.FieldConfig(
        fill_opacity=30.0 if stacked else 0.0,
        show_points=common.VisibilityMode.NEVER,
        span_nulls=False,
        stacking=common.StackingConfig(mode=common.StackingMode.NORMAL, group="A") if stacked else None,
        scale_distribution=common.ScaleDistributionConfig(common.ScaleDistribution.SYMLOG, 10.0, 1.0) if log else None,
        thresholds_style=common.GraphThresholdsStyleConfig(common.GraphThresholdsStyleMode.DASHED_AND_AREA) if limits else None,
    )
    options = timeseries.Options(
        legend=common.VizLegendOptions(
            common.LegendDisplayMode.TABLE, common.LegendPlacement.BOTTOM, show_legend=True, calcs=["lastNotNull", "max"]
        ),
        tooltip=common.VizTooltipOptions(common.TooltipDisplayMode.MULTI, common.SortOrder.DESCENDING),
    )
    return _panel("timeseries", text, queries, unit, limits, size, options, custom, FieldColorModeId.PALETTE_CLASSIC)


def bars(
    text: Text,
    queries: Queries,
    unit: str,
    limits: Limits | None = None,
    *,
    size: tuple[int, int] = (8, 8),
    apart: Mapping[str, Limits] | None = None,
) -> Panel:
    """A bar for each series, with its newest value; `apart` are the limits of those legends that have their own."""
    options = bargauge.Options(
        orientation=common.VizOrientation.HORIZONTAL,
        display_mode=common.BarGaugeDisplayMode.BASIC,
        reduce_options=_newest(),
    )
    panel = _panel("bargauge", text, queries, unit, limits, size, options)
    if panel.field_config is not None:
        panel.field_config.overrides = [
            DashboardFieldConfigSourceOverrides(
                MatcherConfig("byName", legend), [DynamicConfigValue("thresholds", _thresholds(own))]
            )
            for legend, own in (apart or {}).items()
        ]
    return panel


def heat(text: Text, query: str, unit: str, *, size: tuple[int, int] = (12, 8)) -> Panel:
    """How often each bucket of a histogram was hit, over time."""
    options = heatmap.Options(
        calculate=False,
        y_axis=heatmap.YAxisConfig(unit=unit, axis_placement=common.AxisPlacement.LEFT),
        color=heatmap.HeatmapColorOptions(
            mode=heatmap.HeatmapColorMode.SCHEME, scheme="Oranges", fill="dark-orange", exponent=0.5, steps=64
        ),
    )
    panel = _panel("heatmap", text, {"{{le}}": query}, unit, None, size, options)
    for target in panel.targets or ():
        target.format_val = PromQueryFormat.HEATMAP  # type: ignore[attr-defined]  # it is a Dataquery of Prometheus
    return panel


def rows(
    text: Text, query: str, unit: str, limits: Limits | None = None, *, value: str, size: tuple[int, int] = (12, 8)
) -> Panel:
    """A table: a row for each series, a column for each label, the largest `value` first."""
    options = table.Options(sort_by=[common.TableSortByFieldState(display_name=value, desc=True)])
    panel = _panel("table", text, {}, unit, limits, size, options)
    panel.targets = [Dataquery(query, instant=True, range_val=False, format_val=PromQueryFormat.TABLE, ref_id="A")]
    panel.transformations = [
        DataTransformerConfig("organize", options={"excludeByName": {"Time": True}, "renameByName": {"Value": value}})
    ]
    return panel


def _panel(
    kind: str,
    text: Text,
    queries: Queries,
    unit: str,
    limits: Limits | None,
    size: tuple[int, int],
    options: object,
    custom: object = None,
    colour: FieldColorModeId = FieldColorModeId.THRESHOLDS,
) -> Panel:
    width, height = size
    return Panel(
        type_val=kind,
        title=text.title,
        description=f"{text.shows} If it {'is red' if limits else 'looks wrong'}, {text.act}.",
        datasource=SOURCE,
        targets=[
            _query(reference, legend, expr) for reference, (legend, expr) in zip("ABCDEFGH", queries.items(), strict=False)
        ],
        grid_pos=GridPos(h=height, w=width),
        links=[DashboardLink("Runbook", url=f"${{runbook}}#{text.alert.lower()}", icon="doc", target_blank=True)],
        options=options,
        field_config=FieldConfigSource(
            FieldConfig(
                unit=unit,
                no_value="no data",
                color=FieldColor(colour),
                thresholds=_thresholds(limits),
                custom=custom,
            ),
            [],
        ),
    )


def _query(reference: str, legend: str, expr: str, *, instant: bool = False) -> Dataquery:
    return Dataquery(
        expr, instant=instant, range_val=not instant, legend_format=legend or "__auto", ref_id=reference, datasource=SOURCE
    )


def _thresholds(limits: Limits | None) -> ThresholdsConfig:
    return ThresholdsConfig(ThresholdsMode.ABSOLUTE, limits.steps() if limits else [Threshold(None, "blue")])


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions(calcs=["lastNotNull"])
