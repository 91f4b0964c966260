"""The state of the system: processes, queues, deliveries, dead letters, the ledger's size."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.admin.read_session import open_engine, snapshot
from ops.errors import one_line
from ops.runtime.db import Connection, damaged
from ops.servers.process_tree import SeenProcess
from ops.settings import Settings
from ops.system.stack_file import read_stack
from pipeline.store.admin import counts
from pipeline.store.ledger import scan
from pipeline.store.mail import mailbox_overview

Depths = Callable[[str], Mapping[str, int | None]]


def status(data: Path, settings: Settings, depths: Depths) -> dict[str, Any]:
    """The state as one JSON object. Only the database must answer; without the broker, `queues` is null, with the reason."""
    with open_engine(settings) as engine, snapshot(engine) as conn:
        counted = counts.deliveries(conn)
        dead_letters = counts.open_dead_letters(conn)
        found = {
            "deliveries": counted.by_state,
            "deliveries_estimated": counted.estimated,
            "oldest_due_seconds": _age(counted.oldest_due),
            "dead_letters": {each.stage: each.count for each in dead_letters},
            "on_broken_chains": counts.on_broken_chains(conn),
            "oldest_dead_letter_seconds": _age(min((each.oldest for each in dead_letters), default=None)),
            "disabled_endpoints": counts.disabled_endpoints(conn),
            "mailboxes": dict(mailbox_overview.states(conn)),
            **_ledger(conn),
        }
    return {"processes": _processes(data, settings), **_queues(settings, depths), **found}


def _processes(data: Path, settings: Settings) -> dict[str, list[dict[str, Any]]] | None:
    """The processes of the private system that the database belongs to; None for any other database."""
    known = read_stack(data)
    if known is None or known["database_url"] != settings.database_url:
        return None
    started = known.get("started", {})
    return {
        role: [{"pid": pid, "up": SeenProcess(pid, started.get(str(pid), 0.0)).alive()} for pid in pids]
        for role, pids in known["pids"].items()
    }


def _queues(settings: Settings, depths: Depths) -> dict[str, Any]:
    if not settings.amqp_url:
        return {"queues": None, "queues_error": "WAXSEAL_AMQP_URL is not set"}
    try:
        return {"queues": dict(depths(settings.amqp_url)), "queues_error": None}
    except Exception as error:  # noqa: BLE001 - pika's errors cannot be named here; any of them means that the broker does not answer
        return {"queues": None, "queues_error": f"the broker does not answer: {type(error).__name__} {error}".strip()}


def _ledger(conn: Connection) -> dict[str, Any]:
    """The ledger's size, read last: if the rows of chains cannot be read, the other figures are shown all the same."""
    size = counts.ledger_bytes(conn)
    try:
        chains, entries = scan.size(conn)
    except Exception as error:
        if not damaged(error):
            raise
        what = f"Postgres cannot read it: {one_line(error)}"
        return {"ledger": {"entries": None, "chains": None, "bytes": size}, "ledger_error": what}
    return {"ledger": {"entries": entries, "chains": chains, "bytes": size}, "ledger_error": None}


def _age(since: datetime | None) -> float | None:
    """Seconds since then; 0 for a time in the future."""
    return None if since is None else round(max(0.0, (datetime.now(UTC) - since).total_seconds()), 3)
