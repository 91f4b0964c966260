"""A real Prometheus, asked as Grafana asks for its dashboards."""

import json
import math
import re
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from support.telemetry.dashboards import DASHBOARDS, Json, PanelQuery, expanded

_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
_SPECIAL = re.compile(r"[$^*{}\[\]'+?.()|]")


def choices(dashboard: str) -> dict[str, Json]:
    """The variables of a dashboard whose values come from Prometheus, by name."""
    every = DASHBOARDS[dashboard]["templating"]["list"]
    return {each["name"]: each for each in every if each["type"] == "query"}


def all_chosen(dashboard: str) -> dict[str, str]:
    """What stands for the variables of a dashboard while All is chosen for each."""
    return {name: variable["allValue"] for name, variable in choices(dashboard).items()}


def chosen(values: Iterable[str]) -> str:
    """What stands for a variable of which several values are chosen: as in `specialRegexEscape` of Grafana's own plugin."""
    return "(" + "|".join(_SPECIAL.sub(r"\\\\\g<0>", value) for value in values) + ")"


@dataclass(frozen=True)
class Prometheus:
    """The Prometheus at `url`; dashboards show the time from `since` (seconds since 1970) to now."""

    url: str
    since: float

    def shown(self, query: PanelQuery, variables: Mapping[str, str]) -> list[float]:
        """The values that a panel would show of a query, without those that are no numbers."""
        expr = query.asked(**variables)
        return self._newest(expr) if query.instant else self.course(expr)

    def course(self, expr: str) -> list[float]:
        """All values of an expression, second by second."""
        found = self._ask("query_range", query=expr, start=self.since, end=time.time(), step=1)["result"]
        return _numbers(value for series in found for _, value in series["values"])

    def options(self, dashboard: str, name: str) -> list[str]:
        """The values that a variable offers, without All."""
        asked = _LABEL_VALUES.fullmatch(choices(dashboard)[name]["query"]["query"])
        assert asked is not None
        series = expanded(asked[1], **all_chosen(dashboard))
        return list(self._ask(f"label/{asked[2]}/values", **{"match[]": series, "start": self.since}))

    def until(self, comparison: str, seconds: float = 60) -> None:
        """Returns when the comparison finds something; fails when it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._ask("query", query=comparison)["result"]:
            assert time.monotonic() < deadline, f"did not come true in time: {comparison}"
            time.sleep(0.2)

    def _newest(self, expr: str) -> list[float]:
        # At the full minute that comes: a subquery is evaluated at full minutes only, and the first may not be over yet.
        found = self._ask("query", query=expr, time=math.ceil(time.time() / 60) * 60)["result"]
        return _numbers(series["value"][1] for series in found)

    def _ask(self, what: str, **parameters: object) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]


def _numbers(values: Iterable[str]) -> list[float]:
    return [number for value in values if not math.isnan(number := float(value))]
