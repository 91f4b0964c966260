"""How lists are shown: a table on a terminal, JSON lines with `--json`, tab-separated lines elsewhere."""

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

_AWKWARD: Final = re.compile("[\x7f-\x9f\u2028\u2029]")  # what JSON leaves as it is, and others take for a line's end
_ROWS: Final = 200  # of a list that nobody has limited
_WIDEST: Final = 60  # characters of one cell

Row = Mapping[str, Any]
Column = tuple[str, str | Callable[[Row], object]]


def show_list(
    rows: Iterable[Row],
    columns: Sequence[Column],
    as_json: bool,
    *,
    limited: bool = False,
    total: Callable[[], int] | None = None,
) -> int:
    """Shows `rows` as they come; returns how many. The first 200, unless `limited` by who asked; as JSON, for programs, all.

    That there are more is said on stderr; how many, when `total` can tell.
    """
    if as_json:
        return sum(show_json(row) for row in rows)
    cells = ([_cell(row, value) for _, value in columns] for row in rows)
    begun = [*islice(cells, 1)]  # what goes wrong does so before there is a title
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
    """Shows one thing, a field a line."""
    if as_json:
        show_json(row)
        return
    width = max(map(len, row))
    for name, value in row.items():
        text = orjson.dumps(value).decode() if isinstance(value, dict | list) else "-" if value is None else str(value)
        click.echo(f"{name:<{width}}  {printable(text)}")


def printable(text: str) -> str:
    """The text with everything escaped that a terminal might obey, or that would break a line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def moment(name: str) -> Callable[[Row], object]:
    """A time as a list shows it: to the second."""
    return lambda row: (row[name] or "")[:19].replace("T", " ")


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what it gives is called with how much is done."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda done: bar.update(task, completed=done)


def show_json(row: Row) -> int:
    """Shows one object as one line, whatever its strings hold: nothing in it ends a line, or is obeyed by a terminal."""
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
