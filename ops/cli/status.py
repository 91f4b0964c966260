"""The command that shows the state of the system."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, printable, show_json


@click.command()
@JSON
@DATA
def status(as_json: bool, data: Path) -> None:
    """Show processes, queues, deliveries, dead letters and the ledger's size.

    Example: waxseal status
    """
    from ops.admin.status import status as look
    from ops.system.stack_file import settings_for
    from workers.amqp.queue_depths import depths
    from workers.amqp.topology import UNROUTED

    found = look(data, settings_for(data, "database_url"), depths)
    if as_json:
        show_json(found)
        return
    for name, value in _lines(found):
        click.echo(f"{name:<15}{printable(value)}")
    if kept := (found["queues"] or {}).get(UNROUTED):
        told = (
            f"{counted(kept, 'message', 'messages')} came while the inbox queue was deleted; ingest records them when it runs"
        )
        click.echo(f"{'unrouted':<15}{told}")


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for role, processes in (found["processes"] or {}).items():
        yield role, ", ".join(f"{each['pid']} {'up' if each['up'] else 'DOWN'}" for each in processes) or "DOWN"
    if found["queues"] is None:
        yield "queues", found["queues_error"]
    for queue, depth in (found["queues"] or {}).items():
        yield "queue", f"{queue}: {'not there yet' if depth is None else f'{depth} waiting'}"
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["deliveries"].items())) or "none"
    yield "deliveries", ("about " if found["deliveries_estimated"] else "") + states
    if found["oldest_due_seconds"]:
        yield "", f"the oldest is due for {found['oldest_due_seconds']:.1f} s"
    for endpoint, reason in found["disabled_endpoints"].items():
        yield "disabled", f"{endpoint}: {reason}"
    if found["mailboxes"]:
        yield "mailboxes", ", ".join(f"{count} {state}" for state, count in sorted(found["mailboxes"].items()))
    letters = ", ".join(f"{count} at {stage}" for stage, count in found["dead_letters"].items()) or "none"
    yield "dead letters", f"{letters}" + (" (waxseal dead list)" if found["dead_letters"] else "")
    if waiting := found["on_broken_chains"]:
        yield "broken chains", f"{counted(waiting, 'message waits', 'messages wait')} (waxseal dead list --reason chain_broken)"
    ledger = found["ledger"]
    if found["ledger_error"]:
        yield "ledger", f"{found['ledger_error']}; {ledger['bytes'] / 2**20:.1f} MiB"
        return
    entries, chains = counted(ledger["entries"], "entry", "entries"), counted(ledger["chains"], "chain", "chains")
    yield "ledger", f"{entries} in {chains}, {ledger['bytes'] / 2**20:.1f} MiB"


COMMANDS: tuple[click.Command, ...] = (status,)
