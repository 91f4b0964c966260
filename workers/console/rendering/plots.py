"""The geometry of plots: plain numbers that templates write as SVG. Values begin at zero; a gap is where nothing is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Series = Sequence[float | None]

_WIDTH: Final = 720
_HEIGHT: Final = 160
_LEFT, _TOP, _BOTTOM = 48, 16, 24  # room for the numbers at the axes


@dataclass(frozen=True, slots=True)
class Line:
    """One series: `points` are those of its pieces between gaps, as SVG's `polyline` takes them."""

    name: str
    pieces: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one time axis, the marks at the left as (y, number) and those below as (x, text)."""

    width: int
    height: int
    left: int
    bottom: float
    lines: Sequence[Line]
    rows: Sequence[tuple[float, float]]
    columns: Sequence[tuple[float, str]]


def sparkline(series: Series, width: int = 120, height: int = 28) -> Sequence[str]:
    """The pieces of a line that fills the box."""
    most = max((value for value in series if value is not None), default=0) or 1
    return _pieces(series, most, (0, 2, width, height - 2))


def chart(lines: Mapping[str, Series], columns: Sequence[str]) -> Chart:
    """Lines of equal length in one box; `columns` are written below, spread over its width."""
    most = _above(max((value for series in lines.values() for value in series if value is not None), default=0))
    bottom = _HEIGHT - _BOTTOM
    box = (_LEFT, _TOP, _WIDTH - 4, bottom)
    rows = [(bottom - (bottom - _TOP) * part / 2, most * part / 2) for part in range(3)]
    step = (_WIDTH - 4 - _LEFT) / max(1, len(columns) - 1)
    marks = [(round(_LEFT + at * step, 1), text) for at, text in enumerate(columns)]
    drawn = [Line(name, _pieces(series, most, box)) for name, series in lines.items()]
    return Chart(_WIDTH, _HEIGHT, _LEFT, bottom, drawn, rows, marks)


def phases(attempt: Mapping[str, Any]) -> Sequence[tuple[str, float, float, float]]:
    """The phases of an attempt as (name, begin, width, seconds), both of 100; the rest of its time is the last one."""
    known = [(name, attempt["phases"][name]) for name in ("dns", "connect", "tls", "first_byte") if name in attempt["phases"]]
    whole = max(attempt["seconds"], sum(seconds for _, seconds in known)) or 1e-9
    rest = whole - sum(seconds for _, seconds in known)
    found, begin = [], 0.0
    for name, seconds in [*known, ("rest", rest)]:
        width = 100 * seconds / whole
        if seconds > 0:
            found.append((name.replace("_", " "), round(begin, 2), round(max(width, 0.5), 2), seconds))
        begin += width
    return found


def _pieces(series: Series, most: float, box: tuple[float, float, float, float]) -> list[str]:
    left, top, right, bottom = box
    step = (right - left) / max(1, len(series) - 1)
    pieces: list[list[str]] = [[]]
    for at, value in enumerate(series):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{left + at * step:.1f},{bottom - (bottom - top) * value / most:.1f}")
    # A single point has no length to draw; a short dash shows it.
    return [" ".join(piece) if len(piece) > 1 else f"{piece[0]} {_moved(piece[0])}" for piece in pieces if piece]


def _moved(point: str) -> str:
    x, _, y = point.partition(",")
    return f"{float(x) + 1:.1f},{y}"


def _above(value: float) -> float:
    """The next of 2, 4, 10, 20, 40, 100 … that is not below the value: halves of it are round, too."""
    step = 1.0
    while True:
        for factor in (2, 4, 10):
            if value <= step * factor:
                return step * factor
        step *= 10
