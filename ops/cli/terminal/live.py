"""Shows something again and again: in place on a terminal, one after the other elsewhere."""

# ruff: noqa: PLC0415 - rich is loaded only when there is a terminal to draw on

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import click

from ops.cli.terminal.output import LABEL, labelled, show_json, show_labelled

Show = Callable[[dict[str, Any]], None]
Lines = Callable[[dict[str, Any]], Sequence[tuple[str, str]]]

_BAD = ("TROUBLE", "database", "queues")


def keep_showing(look: Callable[[], dict[str, Any]], lines: Lines, seconds: float, as_json: bool) -> None:
    """Shows what `look` finds every so many seconds, as the labelled `lines` of it or as JSON, until Ctrl-C."""
    with suppress(KeyboardInterrupt), _shown(lines, as_json) as show:
        while True:
            show(look())
            sys.stdout.flush()
            time.sleep(seconds)


@contextmanager
def _shown(lines: Lines, as_json: bool) -> Iterator[Show]:
    if as_json:
        yield lambda found: _ignore(show_json(found))
    elif sys.stdout.isatty():
        with _in_place(lines) as show:
            yield show
    else:
        yield lambda found: _print(lines(found))


@contextmanager
def _in_place(lines: Lines) -> Iterator[Show]:
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as live:

        def draw(found: dict[str, Any]) -> None:
            text = Text(no_wrap=True, overflow="ellipsis")
            text.append(f"{'':<{LABEL}}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, Ctrl-C ends this\n", "dim")
            said = list(lines(found))
            first = next((at for at, (label, _) in enumerate(said) if label == "TROUBLE"), len(said))
            for label, line in [*said[first:], *said[:first]]:  # what does not fit is cut off at the end
                bad = label in _BAD or "DOWN" in line or "NOT READY" in line
                text.append(f"{labelled(label, line)}\n", "bold red" if bad else "")
            live.update(text, refresh=True)

        yield draw


def _print(found: Sequence[tuple[str, str]]) -> None:
    show_labelled(found)
    click.echo()


def _ignore(_shown: int) -> None:
    """Drops the number of lines that `show_json` gives."""
