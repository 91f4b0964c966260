"""The dashboards: written by their generator, read by Grafana's own models, and asking for metrics that exist."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import promql_parser as promql
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY
from ruamel.yaml import YAML

from ops.grafana import slo
from ops.grafana.files import files
from ops.prometheus import RULES, slo_rules
from ops.telemetry import table  # noqa: F401 - importing it fills the table
from ops.telemetry.metric_kinds import TABLE, Row
from support.pages import unknown_words
from support.paths import ROOT
from support.telemetry.dashboards import DASHBOARDS, FOLDER, Json, PanelQuery, expanded, nodes, panel_queries, panels, selectors

UIDS = [f"waxseal-{name}" for name in ("overview", "delivery", "queues", "workers", "slo", "mailboxes")]
QUERIES = panel_queries()
RUNBOOK = "ops/docs/runbook.md"

# --- The files, and what Grafana's models make of them


def test_the_files_are_what_the_generator_writes() -> None:
    assert files() == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}


def test_the_six_dashboards_are_found_by_their_uids() -> None:
    assert {uid: uid for uid in UIDS} == {uid: dashboard["uid"] for uid, dashboard in DASHBOARDS.items()}


#: What Grafana reads and its models leave out: the texts of events, in its source of Prometheus's data.
UNKNOWN_TO_THE_MODELS = re.compile(r"annotations/list/\d+/(titleFormat|textFormat|useValueForTime)")


def paths(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON value, by its path."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, f"{path}/{key}" if path else str(key))
    else:
        yield path, value


def lost(dashboard: Json) -> dict[str, Any]:
    """What the models of Grafana do not give back as they read it."""
    register_default_plugins()
    again = dict(paths(json.loads(json.dumps(Dashboard.from_json(copy.deepcopy(dashboard)), cls=JSONEncoder))))
    return {path: value for path, value in paths(dashboard) if again.get(path, KeyError) != value}


@pytest.mark.parametrize("uid", UIDS)
def test_grafanas_models_read_every_key_and_give_it_back(uid: str) -> None:
    assert [] == [path for path in lost(DASHBOARDS[uid]) if not UNKNOWN_TO_THE_MODELS.fullmatch(path)]


def planted(place: Callable[[Json], Json]) -> Json:
    dashboard = copy.deepcopy(DASHBOARDS["waxseal-overview"])
    place(dashboard)["wrongly_spelled"] = 1
    return dashboard


@pytest.mark.parametrize(
    "place",
    [
        lambda it: it,
        lambda it: it["panels"][0],
        lambda it: it["panels"][0]["options"],
        lambda it: next(panel for panel in it["panels"] if panel["type"] == "timeseries")["fieldConfig"]["defaults"]["custom"],
        lambda it: it["panels"][0]["targets"][0],
        lambda it: it["templating"]["list"][1],
    ],
)
def test_a_key_that_grafana_does_not_know_would_be_found(place: Callable[[Json], Json]) -> None:
    assert any(path.endswith("wrongly_spelled") for path in lost(planted(place)))


# --- The rules of grafana/dashboard-linter 0.1.1, docs/index.md; here they hold for every kind of panel


def variables(dashboard: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def template_datasource(dashboard: Json) -> list[str]:
    found = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    return (
        [] if [("datasource", "Data source", "prometheus")] == [(e["name"], e["label"], e["query"]) for e in found] else ["-"]
    )


def _choice_of(name: str) -> Callable[[Json], list[str]]:
    wanted = {"type": "query", "label": name.capitalize(), "multi": True, "allValue": ".+"}

    def rule(dashboard: Json) -> list[str]:
        variable = variables(dashboard).get(name, {})
        right = wanted.items() <= variable.items() and variable["datasource"]["uid"] == "${datasource}"
        return [] if right else [name]

    return rule


def template_label_promql(dashboard: Json) -> list[str]:
    queries = [(name, each["query"]["query"]) for name, each in variables(dashboard).items() if each["type"] == "query"]
    return [name for name, query in queries if not is_promql(re.sub(r"^label_values\((.+), \w+\)$", r"\1", query))]


def template_on_time_change_reload(dashboard: Json) -> list[str]:
    return [name for name, each in variables(dashboard).items() if each["type"] == "query" and each["refresh"] != 2]


def uneditable(dashboard: Json) -> list[str]:
    return ["-"] if dashboard["editable"] else []


def panel_datasource(dashboard: Json) -> list[str]:
    return [panel["title"] for panel in panels(dashboard) if panel["datasource"]["uid"] != "${datasource}"]


def panel_title_description(dashboard: Json) -> list[str]:
    return [str(panel["id"]) for panel in panels(dashboard) if not (panel.get("title") and panel.get("description"))]


def panel_units(dashboard: Json) -> list[str]:
    known = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
    return [panel["title"] for panel in panels(dashboard) if panel["fieldConfig"]["defaults"].get("unit") not in known]


def panel_no_targets(dashboard: Json) -> list[str]:
    return [panel["title"] for panel in panels(dashboard) if not panel["targets"]]


def queries_of(dashboard: Json) -> list[PanelQuery]:
    return [query for query in QUERIES if query.dashboard == dashboard["uid"]]


def is_promql(expr: str) -> bool:
    try:
        promql.parse(expanded(expr))
    except ValueError:
        return False
    return True


def target_promql(dashboard: Json) -> list[str]:
    return [query.panel for query in queries_of(dashboard) if not is_promql(query.expr)]


def target_rate_interval(dashboard: Json) -> list[str]:
    return [
        query.panel
        for query in queries_of(dashboard)
        if set(re.findall(r"\bi?rate\([^\[]+\[([^\]]+)\]", query.expr)) - {"$__rate_interval"}
    ]


def _matched(label: str) -> Callable[[Json], list[str]]:
    def rule(dashboard: Json) -> list[str]:
        return [query.panel for query in queries_of(dashboard) if not all(matches(each, label) for each in found(query))]

    def found(query: PanelQuery) -> list[promql.VectorSelector]:
        return selectors(promql.parse(expanded(query.expr, job="$job", instance="$instance")))

    def matches(selector: promql.VectorSelector, label: str) -> bool:
        return (label, promql.MatchOp.Re, f"${label}") in [(m.name, m.op, m.value) for m in selector.matchers.matchers]

    return rule


def target_counter_agg(dashboard: Json) -> list[str]:
    def bare(expr: promql.Expr) -> list[str]:
        every = [each.name for each in selectors(expr) if each.name.endswith("_total")]
        calls = [
            node for node in nodes(expr) if isinstance(node, promql.Call) and node.func.name in {"rate", "irate", "increase"}
        ]
        return every[len([name for call in calls for each in selectors(call) if (name := each.name).endswith("_total")]) :]

    return [query.panel for query in queries_of(dashboard) if bare(promql.parse(query.asked()))]


RULES_OF_THE_LINTER: dict[str, Callable[[Json], list[str]]] = {
    "template-datasource": template_datasource,
    "template-job": _choice_of("job"),
    "template-instance": _choice_of("instance"),
    "template-label-promql": template_label_promql,
    "template-on-time-change-reload": template_on_time_change_reload,
    "panel-datasource": panel_datasource,
    "panel-title-description": panel_title_description,
    "panel-units": panel_units,
    "panel-no-targets": panel_no_targets,
    "target-promql": target_promql,
    "target-rate-interval": target_rate_interval,
    "target-job": _matched("job"),
    "target-instance": _matched("instance"),
    "target-counter-agg": target_counter_agg,
    "uneditable-dashboard": uneditable,
}

OBJECTIVES = re.compile(r".*(budget left|kept in 30 days|burn rate of \w+)")
EXPORTER = re.compile("Deadlocks within an hour|Dead rows|Connections of Postgres")
#: rule: the panels in which it does not hold, and why.
EXCEPTIONS = {
    "target-job": [
        (OBJECTIVES, "an objective is recorded for the whole system, without the labels of its processes"),
        (EXPORTER, "the exporter of Postgres has a job of its own, and one is scraped for all"),
    ],
    "target-instance": [(OBJECTIVES, "likewise"), (EXPORTER, "likewise")],
}


@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("rule", RULES_OF_THE_LINTER)
def test_the_rules_of_the_linter_hold(rule: str, uid: str) -> None:
    excepted = [panels for panels, _ in EXCEPTIONS.get(rule, ())]

    assert [] == [
        name for name in RULES_OF_THE_LINTER[rule](DASHBOARDS[uid]) if not any(each.fullmatch(name) for each in excepted)
    ]


# --- What a panel says


PANELS = [(uid, panel) for uid, dashboard in DASHBOARDS.items() for panel in panels(dashboard)]


def limits(panel: Json) -> list[str]:
    return [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]


def test_a_panel_ends_by_saying_what_to_do_when_it_is_red_or_looks_wrong() -> None:
    said = {True: re.compile(r".+\. If it is red, .+[^.]\.", re.DOTALL), False: re.compile(r".+\. If it looks wrong, .+[^.]\.")}

    assert [] == [
        (uid, panel["title"]) for uid, panel in PANELS if not said["red" in limits(panel)].fullmatch(panel["description"])
    ]


def test_every_command_that_a_panel_names_exists() -> None:
    named = {each for _, panel in PANELS for each in re.findall(r"`waxseal ([^`]+)`", panel["description"])}

    assert {"status", "dead list"} <= named
    assert [] == [each for each in named if unknown_words(each.split())]


def test_a_share_and_a_time_have_limits() -> None:
    """Where there is right and wrong. The others show how much there is, or differ from site to site."""
    free = {"Connections reused", "One run of an actor, p95", "One attempt", "Age of processes", "From record to delivery"}
    free |= {"Age of the oldest that is kept"}
    judged = [panel for _, panel in PANELS if panel["fieldConfig"]["defaults"]["unit"] in {"percentunit", "s"}]

    assert free == {panel["title"] for panel in judged if "red" not in limits(panel)}


def test_every_link_leads_to_a_section_of_the_runbook() -> None:
    sections = {
        re.sub(r"[^\w-]", "", line.lower()) for line in re.findall(r"^#+ (\S+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    }
    links = {link["url"] for _, panel in PANELS for link in panel["links"]}
    (base,) = {variables(dashboard)["runbook"]["query"] for dashboard in DASHBOARDS.values()}

    assert [] == [panel["title"] for _, panel in PANELS if not panel["links"]]
    assert RUNBOOK == base
    assert set() == {link.removeprefix("${runbook}#") for link in links} - sections


def test_the_dashboards_lead_to_each_other_with_variables_and_times() -> None:
    for dashboard in DASHBOARDS.values():
        (link,) = dashboard["links"]
        assert (link["includeVars"], link["keepTime"]) == (True, True)
        assert set(link["tags"]) <= set(dashboard["tags"])


def test_every_dashboard_shows_deploys_and_alerts() -> None:
    for dashboard in DASHBOARDS.values():
        deploys, alerts = dashboard["annotations"]["list"]
        assert "process_start_time_seconds" in deploys["expr"]
        assert alerts["expr"].startswith('ALERTS{alertstate="firing"')
        assert is_promql(deploys["expr"])
        assert is_promql(alerts["expr"])


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    for uid, dashboard in DASHBOARDS.items():
        cells = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in dashboard["panels"]
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(cells)) == len(cells), uid
        assert len(set(ids)) == len(ids), uid
        assert max(x for x, _ in cells) < 24, uid


def test_the_overview_fits_on_one_screen() -> None:
    """A row of Grafana's grid is 38 px high: 24 of them are the height of a screen of 1080 px without its bars."""
    places = [panel["gridPos"] for panel in DASHBOARDS["waxseal-overview"]["panels"]]

    assert max(place["y"] + place["h"] for place in places) <= 24


def test_the_overview_shows_the_route_in_its_order() -> None:
    lines = [query.legend for query in QUERIES if query.panel.startswith("The route of")]

    assert [str(number) for number in range(1, 8)] == [line[0] for line in lines if line[0].isdigit()]


# --- What is asked


LABELS_OF_TARGETS = {"job", "instance", "role"}
PROCESS = {family.name for family in REGISTRY.collect() if family.name.startswith("process_")} | {"process_cpu_seconds_total"}
#: Of the exporter of Postgres: series and their labels. Without it, their panels are empty.
EXPORTED = {
    "pg_stat_database_deadlocks": {"datname"},
    "pg_stat_user_tables_n_dead_tup": {"relname"},
    "pg_stat_user_tables_n_live_tup": {"relname"},
    "pg_stat_activity_count": {"datname"},
    "pg_settings_max_connections": set(),
}


@cache
def recorded() -> dict[str, dict[str, set[str]]]:
    """The series that rules record, with the values of their labels."""
    every = [rule for path in RULES for group in YAML(typ="safe").load(path)["groups"] for rule in group["rules"]]
    found: dict[str, dict[str, set[str]]] = {}
    for rule in every:
        for label, value in rule.get("labels", {}).items() if "record" in rule else ():
            found.setdefault(rule["record"], {}).setdefault(label, set()).add(value)
    return found


def row_of(name: str) -> Row | None:
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return TABLE.get(name) or (TABLE.get(stem) if stem in TABLE and TABLE[stem].kind == "histogram" else None)


def labels_of(name: str) -> dict[str, set[str]] | None:
    """The labels that a series may have, each with its values, of which none are listed if they are open; None: no such."""
    everywhere: dict[str, set[str]] = {label: set() for label in LABELS_OF_TARGETS}
    if name == "up" or name in PROCESS:
        return everywhere
    if name in EXPORTED:
        return {label: set() for label in EXPORTED[name]}
    if name.startswith("waxseal:"):
        return recorded().get(name)
    row = row_of(name)
    if row is None:
        return None
    bounds = {str(float(bound)) for bound in getattr(row.metric, "_upper_bounds", ())}
    return everywhere | {label: set(values) for label, values in row.labels.items()} | ({"le": bounds} if bounds else {})


def wrong_matchers(selector: promql.VectorSelector) -> list[str]:
    labels = labels_of(selector.name)
    if labels is None:
        return [f"no metric {selector.name}"]
    wrong = [f"{selector.name} has no label {each.name}" for each in selector.matchers.matchers if each.name not in labels]
    for each in selector.matchers.matchers:
        values = labels.get(each.name)
        named = [each.value] if each.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual) else each.value.split("|")
        if values and each.value != ".*":
            wrong += [f"{each.name}={value} of {selector.name}" for value in named if value not in values]
    return wrong


def wrong_groups(expr: promql.Expr) -> list[str]:
    return [
        f"{selector.name} has no label {label}"
        for node in nodes(expr)
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None
        for selector in selectors(node)
        for label in node.modifier.labels
        if label not in (labels_of(selector.name) or ())
    ]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_every_metric_label_and_value_that_a_query_names_exists(query: PanelQuery) -> None:
    parsed = promql.parse(query.asked())

    assert [] == [wrong for selector in selectors(parsed) for wrong in wrong_matchers(selector)] + wrong_groups(parsed)


@pytest.mark.parametrize(
    "expr",
    [
        "waxseal_ingest_message_total",
        'waxseal_deliveries_total{outcome="delivered"}',
        'waxseal_deliveries_total{result="arrived"}',
        'waxseal_delivery_first_attempt_delay_seconds_bucket{le="30"}',
        "waxseal_deliveries_total_count",
        'waxseal:sli_error:ratio_rate5m{slo="intake"}',
        "sum by (queue) (waxseal_deliveries_total)",
    ],
)
def test_a_metric_label_or_value_that_does_not_exist_would_be_found(expr: str) -> None:
    parsed = promql.parse(expr)

    assert [] != [wrong for selector in selectors(parsed) for wrong in wrong_matchers(selector)] + wrong_groups(parsed)


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for query in QUERIES:
        kept = [
            set(node.modifier.labels)
            for node in nodes(promql.parse(query.asked()))
            if isinstance(node, promql.AggregateExpr) and node.modifier
        ]
        named = set(re.findall(r"\{\{(\w+)\}\}", query.legend)) - {"instance"}
        assert named <= (kept[0] if kept else set()), str(query)


def test_a_query_uses_only_variables_of_its_dashboard() -> None:
    for query in QUERIES:
        named = set(re.findall(r"\$(?!__)(\w+)", query.expr))
        assert named <= set(variables(DASHBOARDS[query.dashboard])), str(query)


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {row.name for query in QUERIES for each in selectors(promql.parse(query.asked())) if (row := row_of(each.name))}

    assert set() == set(TABLE) - shown


def test_the_objectives_are_those_of_the_recording_rules() -> None:
    assert {each.name: each.budget for each in slo_rules.OBJECTIVES} == {each.name: each.budget for each in slo.OBJECTIVES}
    assert {each.name: each.alert for each in slo_rules.OBJECTIVES} == {each.name: each.alert for each in slo.OBJECTIVES}
    assert slo.BURNS.items() <= {(burn.long, burn.factor) for burn in slo_rules.BURNS}


# --- How Grafana is told


def test_grafana_is_told_of_the_datasource_and_of_the_dashboards() -> None:
    provisioning = FOLDER / "provisioning"
    (source,) = YAML(typ="safe").load(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    (provider,) = YAML(typ="safe").load(provisioning / "dashboards" / "waxseal.yaml")["providers"]

    assert ("prometheus", True) == (source["type"], source["isDefault"])
    assert ("file", False) == (provider["type"], provider["allowUiUpdates"])
