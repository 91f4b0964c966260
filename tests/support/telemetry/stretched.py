"""What a short drill has recorded, as it would have been at the pace of production: input for tests of promtool."""

from collections.abc import Iterable
from typing import Any, Final

import promql_parser as promql

from support.telemetry.dashboards import selectors
from support.telemetry.watching import Labels

Samples = Iterable[tuple[Labels, list[tuple[float, float]]]]

_LASTS: Final = 10  # steps that everything stays as it was at the end


def named(rules: Iterable[dict[str, Any]]) -> set[str]:
    """The metrics that rules read, without those that other rules record."""
    names = {selector.name or "" for rule in rules for selector in selectors(promql.parse(rule["expr"]))}
    return {name for name in names if ":" not in name}


def series(recorded: Samples, since: float, factor: float) -> tuple[list[dict[str, str]], int]:
    """The input series of promtool, one step for each second, and the number of steps.

    A step is `factor` seconds long. So ages are longer by it, but not those of the last answers of servers: processes ask as
    often as they always do.
    """
    found = [(labels, {round(at - since): (at, value) for at, value in samples}) for labels, samples in recorded]
    steps = 1 + max(max(samples) for _, samples in found)
    made = []
    for labels, samples in found:
        name = labels["__name__"]
        values = [_stretched(name, *samples[step], step, factor) if step in samples else "_" for step in range(steps)]
        last = max(samples)
        if last < steps - 2:
            values[last + 1] = "stale"  # the process is gone
        else:
            values += [_stretched(name, *samples[last], step, factor) for step in range(steps, steps + _LASTS)]
        about = ",".join(f'{label}="{value}"' for label, value in labels.items() if label != "__name__")
        made.append({"series": f"{name}{{{about}}}", "values": " ".join(values)})
    return made, steps + _LASTS


def _stretched(name: str, at: float, value: float, step: int, factor: float) -> str:
    if name.endswith("_timestamp_seconds"):
        return f"{step * factor - (at - value):.3f}"
    return repr(value * factor if name.endswith("age_seconds") else value)
