"""Shows lists: as a table on a terminal, as JSON lines with `--json`, as tab-separated lines elsewhere."""

# ruff: noqa: PLC0415 - rich is loaded only when there is a terminal to draw on

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Final

import click
import orjson

JSON = click.option("--json", "as_json", is_flag=True, help="JSON lines instead of a table.")

LABEL: Final = 15  # characters of a label and the space after it
_AWKWARD: Final = re.compile("[\x7f-\x9f\u2028\u2029]")  # unescaped in JSON, but a line's end to some programs
_ROWS: Final = 200  # of a list without --limit
_WIDEST: Final = 60  # characters of one cell

Row = Mapping[str, Any]
Column = tuple[str, str | Callable[[Row], object]]


def show_list(
    rows: Iterable[Row],
    columns: Sequence[Column],
    as_json: bool,
    *,
    none: str = "",
    limited: bool = False,
    total: Callable[[], int] | None = None,
) -> int:
    """Shows `rows` as they arrive; returns how many. Shows the first 200, unless the caller `limited` them; as JSON, all.

    If there are more, stderr says so, and how many if `total` is given; if there are no rows, it says `none`.
    """
    shown = sum(map(show_json, rows)) if as_json else _show_lines(rows, columns, limited, total)
    if none and not shown:
        click.echo(none, err=True)
    return shown


def _show_lines(rows: Iterable[Row], columns: Sequence[Column], limited: bool, total: Callable[[], int] | None) -> int:
    cells = ([_cell(row, value) for _, value in columns] for row in rows)
    begun = [*islice(cells, 1)]  # an error is raised before the titles are printed
    bounded = chain(begun, cells if limited else islice(cells, _ROWS - 1))
    titles = [title for title, _ in columns]
    if sys.stdout.isatty():
        shown = _table(titles, bounded)
    else:
        click.echo("\t".join(titles))
        shown = sum(_line(row) for row in bounded)
    if not limited and next(cells, None) is not None:
        more = "there are more" if total is None else f"there are {total() - shown} more"
        limit = any(each.name == "limit" for each in click.get_current_context().command.params)
        click.echo(f"The first {shown}, and {more}: {'--limit N shows N, ' if limit else ''}--json shows all.", err=True)
    return shown


def show_fields(row: Row, as_json: bool) -> None:
    """Shows one row, a field per line."""
    if as_json:
        show_json(row)
        return
    width = max(map(len, row))
    for name, value in row.items():
        text = orjson.dumps(value).decode() if isinstance(value, dict | list) else "-" if value is None else str(value)
        click.echo(f"{name:<{width}}  {printable(text)}")


def labelled(label: str, text: str) -> str:
    """A line of `status`: its label, and what it says."""
    return f"{label:<{LABEL}}{printable(text)}"


def show_labelled(lines: Iterable[tuple[str, str]]) -> None:
    """Shows labelled lines."""
    for label, text in lines:
        click.echo(labelled(label, text))


def printable(text: str) -> str:
    """The text with control characters and line breaks escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def moment(name: str) -> Callable[[Row], object]:
    """A column's value: the time `name`, to the second."""
    return lambda row: (row[name] or "")[:19].replace("T", " ")


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def duration(seconds: float | None) -> str:
    """How long, in its largest units; empty for None."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere. Call the yielded function with how much is done."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda done: bar.update(task, completed=done)


def show_json(row: Row) -> int:
    """Shows one object as one line; control characters and line breaks in its strings are escaped."""
    click.echo(_AWKWARD.sub(lambda match: f"\\u{ord(match[0]):04x}", orjson.dumps(row).decode()))
    return 1


def _line(cells: Sequence[str]) -> int:
    click.echo("\t".join(cells))
    return 1


def _cell(row: Row, value: str | Callable[[Row], object]) -> str:
    found = value(row) if callable(value) else row[value]
    return "" if found is None else printable(str(found))


def _table(titles: Sequence[str], rows: Iterable[list[str]]) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    shown = 0
    for row in rows:
        table.add_row(*(Text(cell if len(cell) <= _WIDEST else cell[: _WIDEST - 1] + "…") for cell in row))
        shown += 1
    if shown:
        Console().print(table)
    return shown
