"""Times, durations, sizes and counts, as pages write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

#: What a User-Agent says of a browser and of its system, most telling first: most of them name others, too.
_BROWSERS: Final = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS: Final = (
    *(("Android", "Android"), ("iPhone", "iOS"), ("iPad", "iPadOS")),
    *(("Windows", "Windows"), ("Mac OS X", "macOS"), ("Linux", "Linux")),
)
NOTHING: Final = "\N{EN DASH}"  # in place of what is not known
_STEPS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))
_MANY_DAYS: Final = 10


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: `iso` for programs, `exact` to the second, `full` to the microsecond, and how long ago it was when rendered."""

    iso: str
    exact: str
    full: str
    ago: str


def moment(value: datetime | str) -> Moment:
    """A time, given as such or by RFC 3339."""
    at = (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)
    away = (datetime.now(UTC) - at).total_seconds()
    said = "now" if abs(away) < 1 else f"{span(away)} ago" if away > 0 else f"in {span(-away)}"
    return Moment(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        f"{at:%Y-%m-%d %H:%M:%S}",
        f"{at:%Y-%m-%d %H:%M:%S.%f}Z",
        said,
    )


def span(seconds: float | None) -> str:
    """A duration in its two largest units: `2 h 5 min`, `40 s`, `12.5 ms`."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 or not seconds else f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s".replace(".0 s", " s")
    left, parts = int(seconds), []
    for size, unit in _STEPS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return parts[0] if parts[0].endswith(" d") and int(parts[0][:-2]) >= _MANY_DAYS else " ".join(parts[:2])


def number(value: float | None) -> str:
    """With commas between thousands; a dash for what is not known."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if isinstance(value, float) and value != int(value) else f"{int(value):,}"


def counted(value: Mapping[str, Any] | int | None) -> str:
    """A count with how sure it is: `1,204`, `10,000+`, `about 60,000`."""
    if value is None or isinstance(value, int):
        return number(value)
    said = number(value["count"])
    return {"at_least": f"{said}+", "about": f"about {said}"}.get(value["relation"], said)


def size(value: int | None) -> str:
    """Bytes, in units of a thousand."""
    if value is None:
        return NOTHING
    for unit, each in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if value >= each:
            return f"{value / each:.1f} {unit}"
    return f"{value} B"


def many(count: int, one: str, more: str | None = None) -> str:
    """The number and its noun: `1 delivery`, `1,204 deliveries`."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def browser(agent: str) -> str:
    """What a User-Agent says, in short: `Firefox on Windows`; one that is not a browser's as it is."""
    name = next((said for mark, said in _BROWSERS if mark in agent), None)
    system = next((said for mark, said in _SYSTEMS if mark in agent), None)
    return agent if name is None else f"{name} on {system}" if system else name
