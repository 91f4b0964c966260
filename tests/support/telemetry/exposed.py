"""What the processes of a running system show at /metrics, and which of it moves."""

import re
import time
import urllib.request
from collections.abc import Mapping

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from ops.telemetry import table  # noqa: F401 - defines the metrics
from ops.telemetry.metric_kinds import TABLE


def text_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def families_of(url: str) -> dict[str, Metric]:
    """Waxseal's own metrics of a process, by the names in the table."""
    found = [family for family in text_string_to_metric_families(text_of(url)) if family.name.startswith("waxseal_")]
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


class Movement:
    """The metrics of the table of which a value has changed since the start, in any of the processes with these URLs."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._before = self._values()
        self._moved: set[str] = set()

    def wait_for(self, *names: str, seconds: float = 60) -> None:
        """Returns when all of these have moved; fails, and names the others, when they do not within `seconds`."""
        deadline = time.monotonic() + seconds
        while still := set(names) - self._moved:
            assert time.monotonic() < deadline, f"did not move: {sorted(still)}"
            time.sleep(1)  # asking all processes takes a tenth of a second of CPU
            self._moved.update(name for name, values in self._values().items() if values != self._before[name])

    def _values(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in TABLE}
        for series, value in re.findall(
            r"^(waxseal_\w+)(?:{.*})? (\S+)$", "".join(map(text_of, self._urls.values())), re.MULTILINE
        ):
            found[series if series in found else series.rpartition("_")[0]].append(value)
        return found
