"""The geometry of plots: plain numbers that templates write as SVG. Values begin at zero; a gap is where nothing is known.

What is along a line of time is in percent of a width that only the browser knows, so that texts have one size on all screens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log1p
from typing import Any, Final

from workers.console.rendering.figures_in_words import span

Series = Sequence[float | None]

_WIDTH, _HEIGHT = 720, 120  # of the box of the lines, in its own units: it is stretched to the width that there is
_TOP: Final = 16  # pixels above it, for the highest number
_EDGE: Final = 2.0  # percent beside the first and the last try, for their marks
#: Percent between two texts that do not overlap on a phone of 320 pixels: of two times; of a time and the last; of two numbers.
_APART, _BEFORE_LAST, _NUMBERS_APART = 16.0, 35.0, 7.0
_TIMES: Final = (1, 10, 60, 600, 3600, 21_600, 86_400, 432_000, 2_592_000)  # seconds that a line of tries may name


@dataclass(frozen=True, slots=True)
class Line:
    """One series: `points` are those of its pieces between gaps, as SVG's `polyline` takes them."""

    name: str
    pieces: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one time axis, in a box of their own units below `top` pixels that is `bottom` high.

    The marks at the left are (y, number), those below are (x, text).
    """

    width: int
    top: int
    bottom: int
    left: float
    lines: Sequence[Line]
    rows: Sequence[tuple[float, float]]
    columns: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Tries:
    """A schedule of tries on a logarithmic line of time: (x, number or nothing) of each, and (x, text) of some times."""

    tries: Sequence[tuple[float, str]]
    times: Sequence[tuple[float, str]]
    sentence: str


def sparkline(series: Series, width: int = 120, height: int = 28) -> Sequence[str]:
    """The pieces of a line that fills the box."""
    most = max((value for value in series if value is not None), default=0) or 1
    return _pieces(series, most, (0, 2, width, height - 2))


def chart(lines: Mapping[str, Series], columns: Sequence[str], least: float = 2.0) -> Chart:
    """Lines of equal length in one box, which shows `least` at least; `columns` are written below, spread over its width."""
    most = _above(max((value for series in lines.values() for value in series if value is not None), default=0), least)
    rows = [(_TOP + _HEIGHT - _HEIGHT * part / 2, most * part / 2) for part in range(3)]
    step = 100 / max(1, len(columns) - 1)
    marks = [(round(at * step, 1), text) for at, text in enumerate(columns)]
    drawn = [Line(name, _pieces(series, most, (0, 0, _WIDTH, _HEIGHT))) for name, series in lines.items()]
    return Chart(_WIDTH, _TOP, _HEIGHT, 0, drawn, rows, marks)


def tries(retry: Sequence[float]) -> Tries:
    """The line of tries with these waits between them, in seconds. Numbers and times that would overlap are left out."""
    since = [0.0, *accumulate(retry)]
    whole = log1p(since[-1]) or 1.0

    def x(seconds: float) -> float:
        return round(_EDGE + (100 - 2 * _EDGE) * log1p(seconds) / whole, 1)

    drawn: list[tuple[float, str]] = []
    for n, at in enumerate(map(x, since), 1):
        last = max((place for place, text in drawn if text), default=-_NUMBERS_APART)
        drawn.append((at, str(n) if at - last >= _NUMBERS_APART else ""))
    named: list[tuple[float, str]] = [(x(0), "0")]
    for seconds in _TIMES:
        if x(seconds) - named[-1][0] >= _APART and x(seconds) <= 100 - _BEFORE_LAST:
            named.append((x(seconds), span(seconds)))
    said = "Once, at once." if not retry else f"At once, then after {', '.join(map(span, since[1:]))}."
    return Tries(drawn, [*named, (x(since[-1]), span(since[-1]))] if retry else named, said)


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


def _above(value: float, least: float) -> float:
    """The next of 2, 4, 10, 20, 40, 100 … that is not below the value: halves of it are round, too. `least` begins them."""
    step = least / 2
    while True:
        for factor in (2, 4, 10):
            if value <= step * factor:
                return step * factor
        step *= 10
