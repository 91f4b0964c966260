"""The benchmarks."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click

_BENCHMARKS = {
    "ingest": "From a full inbox to committed entries; compared with one task per event and a bare loop.",
    "ingress": "Durable answers of the HTTP ingress, and their latency at fixed rates.",
    "mail": "From mailboxes of a local Dovecot to the ledger; with a large mail, and with mailboxes that hang.",
    "delivery": "From due deliveries to settled ones, end to end, and with endpoints that hang or fail.",
    "verify": "Entries verified per second, whole and incremental; compared with a bare loop that hashes the same rows.",
    "console": "Times of the console's pages at five million events, and what a heavy reader does to ingest.",
    "distance": "Rates and latencies of processes that are far from Postgres and RabbitMQ, by a delay each way.",
    "capacity": "The CPU of each process for a webhook with one delivery, and what 4, 16 and 64 cores would carry.",
    "growth": "Rates of ingest and delivery, and bytes per event, in databases of several sizes.",
    "claims": "The time of one claim of the relay beside millions of delivered rows, and the plan of each statement.",
}
_OPTIONS = {
    "console": (
        click.option(
            "--events",
            type=click.IntRange(min=1000),
            default=5_000_000,
            show_default=True,
            help="Events, each with a delivery.",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder that keeps the filled database for the next run.  [default: none]",
        ),
    ),
    "distance": (
        click.option(
            "--ms",
            type=click.FloatRange(min=0, max=1000),
            multiple=True,
            help="Milliseconds each way, once for each delay.  [default: 0, 2, 50]",
        ),
    ),
    "capacity": (
        click.option(
            "--cores",
            type=click.IntRange(min=1),
            multiple=True,
            help="Cores to carry events, once for each number.  [default: 4, 16, 64]",
        ),
    ),
    "growth": (
        click.option(
            "--at",
            type=click.IntRange(min=1000),
            multiple=True,
            help="Events in a database, once for each size.  [default: 100000, 1000000, 5000000]",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder that keeps the databases for the next run, which resumes.  [default: none]",
        ),
    ),
    "claims": (
        click.option(
            "--rows", type=click.IntRange(min=1), default=5_000_000, show_default=True, help="Delivered rows in the table."
        ),
    ),
}


@click.group()
def bench() -> None:
    """Measure on private servers, and compare with peers in the same run.

    Quote the ratios: all parts of a run share the machine. Each takes from one to a few minutes.

    Example: waxseal bench ingest --json
    """


def _command(name: str, summary: str) -> click.Command:
    @click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
    @click.option("--quick", is_flag=True, help="A tenth of the work, to see that it runs; do not quote its figures.")
    def run(as_json: bool, quick: bool, **others: Any) -> None:
        try:
            module = importlib.import_module(f"ops.bench.{name}")
        except ModuleNotFoundError as missing:
            from ops.errors import Misconfigured

            raise Misconfigured(f"{missing.name} is not installed: pip install 'waxseal[bench]'") from None
        _show(module.run(quick=quick, **others), as_json)

    command = click.command(name, help=f"{summary}\n\nExample: waxseal bench {name} --quick")
    for option in _OPTIONS.get(name, ()):
        run = option(run)
    return command(run)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report))
        return
    for part in ("machine", "versions"):
        click.echo(f"{part}: " + ", ".join(f"{name} {value}" for name, value in report[part].items()))
    figures = {name: value for name, value in report["results"].items() if not isinstance(value, dict)}
    _figures(report["benchmark"], figures)
    for name, rows in report["results"].get("tables", {}).items():
        _table(name, rows)
    for name, lines in report["results"].get("plans", {}).items():
        click.echo(f"\n{name}\n  " + "\n  ".join(lines))


def _figures(benchmark: str, figures: dict[str, Any]) -> None:
    if not sys.stdout.isatty():
        for name, value in figures.items():
            click.echo(f"{name}\t{value}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title=f"bench {benchmark}")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    Console().print(table)


def _table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """A row for each name, a column for each size."""
    columns = list(next(iter(rows.values())))
    width = max(len(name) for name in rows)
    click.echo(f"\n{title}\n  {'':{width}}" + "".join(f"{f'at {int(each):,}':>14}" for each in columns))
    for name, row in rows.items():
        click.echo(f"  {name:{width}}" + "".join(f"{row[each]:>14,.1f}" for each in columns))


for _name, _summary in _BENCHMARKS.items():
    bench.add_command(_command(_name, _summary))

COMMANDS: tuple[click.Command, ...] = (bench,)
