"""The command that shows the state of the system."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, duration, show_json, show_labelled

Line = tuple[str, str]  # a label, and what it says

_TENANTS = 10  # whose claims are told one by one

_STAGES = {
    "receive": "webhooks answered with 202",
    "record": "messages in the inbox",
    "sequence": "entries without a position in their log",
    "claim": "deliveries due",
    "try": "deliveries being sent",
    "deliver": "deliveries accepted",
    "later": "deliveries planned for later",
    "bury": "dead letters",
    "mail": "mailboxes due",
}


@click.command()
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C; with --json, one line each time.")
@click.option(
    "--over",
    type=click.FloatRange(0, 3600),
    help="Seconds over which rates are measured, and between two looks with --watch; 0 measures none.  [default: 1, or 2]",
)
@click.option(
    "--metrics",
    "urls",
    multiple=True,
    metavar="URL",
    help="Address of /metrics of a process that `waxseal up` did not start; may be given several times.",
)
@JSON
@DATA
def status(watch: bool, over: float | None, urls: tuple[str, ...], as_json: bool, data: Path) -> int | None:
    """Show the route: rates, queues, oldest ages, processes, and what is in trouble.

    Each trouble comes with the command to look further. If Postgres or RabbitMQ does not answer, everything else is shown;
    without Postgres the exit code is 2.

    Example: waxseal status --watch
    """
    from ops.admin.status.overview import Watcher
    from ops.admin.status.overview import status as look
    from ops.errors import OpsError
    from ops.system.stack_file import settings_for
    from workers.amqp.queue_depths import queues

    settings = settings_for(data, "database_url")
    if watch:
        from ops.cli.terminal.live import keep_showing

        with closing(Watcher(data, settings, queues, urls)) as watcher:
            keep_showing(watcher.look, lines, 2.0 if over is None else over, as_json)
        return None
    found = look(data, settings, queues, urls, 1.0 if over is None else over)
    if as_json:
        show_json(found)
    else:
        show_labelled(lines(found))
    if found["database_error"]:
        raise OpsError(f"{found['database_error']}: start it with `waxseal up`, or check WAXSEAL_DATABASE_URL")
    return None


def lines(found: dict[str, Any]) -> list[Line]:
    """The status as lines, in the order of the route; troubles last, next to where an operator types."""
    return [*_state(found), *_troubles(found["troubles"])]


def _state(found: dict[str, Any]) -> Iterator[Line]:
    for role, processes in (found["processes"] or {}).items():
        yield role, ", ".join(map(_process, processes)) or "DOWN"
    yield from _route(found["route"], found["measured_seconds"])
    if found["queues"] is None:
        yield "queues", found["queues_error"]
    for queue, depth in (found["queues"] or {}).items():
        yield "queue", f"{queue}: {'not there yet' if depth is None else f'{depth} waiting'}"
    if kept := (found["queues"] or {}).get("waxseal.unrouted"):
        came = f"{counted(kept, 'message', 'messages')} came while the inbox queue was deleted"
        yield "unrouted", f"{came}; ingest records them when it runs"
    if found["database_error"]:
        yield "database", found["database_error"]
    else:
        yield from _recorded(found)


def _process(each: dict[str, Any]) -> str:
    if not each["up"]:
        return f"{each['pid']} DOWN"
    restarts = f", restarted {counted(each['restarts'], 'time', 'times')}" if each["restarts"] else ""
    unready = ", NOT READY" if each["ready"] is False else ""
    return f"{each['pid']} up for {duration(each['age_seconds'])}{restarts}{unready}"


def _route(stages: Sequence[dict[str, Any]], seconds: float | None) -> Iterator[Line]:
    yield "route", f"{'/s':>9}{'waiting':>11}{'oldest':>9}{'drained in':>12}" + (f"   over {seconds:.1f} s" if seconds else "")
    for each in stages:
        rate = "" if each["per_second"] is None else f"{each['per_second']:.1f}"
        waiting = "" if each["waiting"] is None else f"{each['waiting']:,}"
        gone = "" if not each["waiting"] else duration(each["drain_seconds"])
        ages = f"{duration(each['oldest_seconds']):>9}{gone:>12}"
        yield f"  {each['stage']}", f"{rate:>9}{waiting:>11}{ages}   {_STAGES[each['stage']]}"


def _recorded(found: dict[str, Any]) -> Iterator[Line]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["deliveries"].items())) or "none"
    gone = ", ".join(f"{count} {state}" for state, count in sorted(found["deliveries_removed"].items()))
    removed = f"; removed, because they are kept no longer: {gone}" if gone else ""
    yield "deliveries", ("about " if found["deliveries_estimated"] else "") + states + removed
    if found["mailboxes"]:
        yield "mailboxes", ", ".join(f"{count} {state}" for state, count in sorted(found["mailboxes"].items()))
    if archive := found["wal_archive"]:
        behind = "not known" if archive["behind_bytes"] is None else f"{archive['behind_bytes'] / 2**20:.1f} MiB"
        failing = ", FAILING" if archive["failing"] else ""
        yield "archive", f"write-ahead log behind: {behind}, last {archive['archived_at'] or 'never'}{failing}"
    for move in found["moves"]:
        where = "from" if move["state"] in ("arriving", "arrived") else "to"
        yield "move", f"{move['tenant']}: {move['state']}, {where} {move['cell']}"
    letters = ", ".join(f"{count} at {stage}" for stage, count in found["dead_letters"].items()) or "none"
    yield "dead letters", f"{letters}" + (" (waxseal dead list)" if found["dead_letters"] else "")
    if waiting := found["on_broken_chains"]:
        waits = counted(waiting, "message waits", "messages wait")
        yield "broken chains", f"{waits} (waxseal dead list --rows --reason chain_broken)"
    ledger = found["ledger"]
    if found["ledger_error"]:
        yield "ledger", f"{found['ledger_error']}; {ledger['bytes'] / 2**20:.1f} MiB"
        return
    entries, chains = counted(ledger["entries"], "entry", "entries"), counted(ledger["chains"], "chain", "chains")
    yield "ledger", f"{'about ' if ledger['estimated'] else ''}{entries} in {chains}, {ledger['bytes'] / 2**20:.1f} MiB"
    yield from _claims(found["claims"])


def _claims(claims: Sequence[dict[str, Any]]) -> Iterator[Line]:
    """The word of each tenant; of many tenants, how many have each."""
    if not claims:
        yield "claim", "none was checked: run `waxseal verifier`, or `waxseal verify --new`"
    elif len(claims) > _TENANTS:
        words = Counter(each["claim"] for each in claims)
        yield "claim", ", ".join(f"{count} {word}" for word, count in sorted(words.items()))
    else:
        for each in claims:
            missing = f"; {each['missing']}" if each["missing"] else ""
            yield "claim", f"{each['tenant']}: {each['claim']}, checked {each['checked_at'][:16]}{missing}"


def _troubles(troubles: Sequence[dict[str, str]]) -> Iterator[Line]:
    for each in troubles:
        kind = each["kind"].replace("_", " ")
        yield "TROUBLE", f"{kind} {each['name']}: {each['said']}" if kind != each["name"] else each["said"]
        yield "", f"look: {each['look']}"
    if not troubles:
        yield "troubles", "none"


COMMANDS: tuple[click.Command, ...] = (status,)
