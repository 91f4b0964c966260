"""What is wrong, by name, each with the one command to look further."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import RowMapping as Row

from ops.admin.status.facts import LATE, MOST, Facts, age
from ops.admin.status.members import Member, Said
from ops.admin.status.route import Queues, unserved
from ops.admin.views import View

_RESTARTED: Final = 300.0  # seconds for which a restart is shown
_DEFAULT: Final = Path(".waxseal")


def trouble(kind: str, name: str, said: str, look: str) -> View:
    """Something that is wrong: its kind, its name, what is known of it, and the command to look further."""
    return {"kind": kind, "name": name, "said": said, "look": look}


def on(data: Path) -> str:
    """The option that leads a command to this data folder; empty for the default."""
    return "" if data in (_DEFAULT, _DEFAULT.absolute()) else f" --data {shlex.quote(str(data))}"


def of_servers(errors: Mapping[str, str | None], data: Path) -> Iterator[View]:
    """Servers that do not answer."""
    for server, error in errors.items():
        if error is not None:
            yield trouble(server, server, error, f"waxseal doctor{on(data)}")


def of_members(members: Sequence[Member], said: Mapping[str, Said], data: Path) -> Iterator[View]:
    """Processes that do not run, are not ready, or were restarted within five minutes."""
    for each in members:
        log = f"tail -n 50 {shlex.quote(str(data / 'log' / each.name))}.log"
        unready = said[each.url].unready if each.url is not None and each.url in said else None
        if not each.seen.alive():
            began = "waxseal up" + on(data)
            down = "it does not run" + (f"; before: {each.last_end}" if each.last_end else "")
            yield trouble("process", each.name, down, began if each.role == "supervisor" else log)
        elif unready is not None:
            yield trouble("process", each.name, f"not ready: {unready}", log)
        elif each.restarts and (lived := datetime.now(UTC).timestamp() - each.seen.started) < _RESTARTED:
            yield trouble("process", each.name, f"restarted {lived:.0f} s ago, {each.restarts} in all: {each.last_end}", log)


def of_urls(urls: Sequence[str], said: Mapping[str, Said]) -> Iterator[View]:
    """Processes elsewhere that are not ready, by their address."""
    for url in urls:
        if (unready := said[url].unready) is not None:
            ready = f"{url.removesuffix('/metrics')}/readyz"
            yield trouble("process", urlsplit(url).netloc, f"not ready: {unready}", f"curl -s {shlex.quote(ready)}")


def of_queues(queues: Queues | None, data: Path) -> Iterator[View]:
    """Queues in which messages wait while nobody consumes them."""
    for name, count in unserved(queues):
        yield trouble("queue", name, f"{count} wait and nobody consumes them", f"waxseal doctor{on(data)}")


def of_facts(found: Facts, data: Path) -> Iterator[View]:
    """Logs that are refused, chains set aside, tenants that are frozen, endpoints, mailboxes, dead letters and crash loops."""
    here = on(data)
    for row in found.refused_logs:
        look = f"waxseal log status --tenant {row['tenant']}{here}"
        yield trouble("log", row["tenant"], f"not signed ({row['kind']}): {row['detail']}", look)
    for chain in found.chains_aside:
        subject = f" --subject {shlex.quote(chain.subject)}" if chain.subject else ""
        look = f"waxseal verify --tenant {chain.tenant}{subject}{here}"
        yield trouble("chain", f"{chain.tenant}/{chain.subject}", f"set aside: {chain.fault}", look)
    for loop in found.crash_loops:
        yield trouble("crash_loop", loop.partition(" ")[0], loop, f"waxseal events --since 1h{here}")
    if found.backlog.lost_seconds is not None and found.backlog.lost_seconds > LATE.total_seconds():
        ended = f"leases ended {found.backlog.lost_seconds:.0f} s ago and nobody claims the deliveries again"
        yield trouble("process", "relay", ended, f"waxseal doctor{here}")
    if found.retention_held is not None:
        yield trouble("retention", "eraser", f"nothing is erased: {found.retention_held}", f"waxseal retention{here}")
    archive = found.plain["wal_archive"]
    if archive is not None and archive["failing"]:
        last = f"since {archive['archived_at'][:19]}Z" if archive["archived_at"] else "at all"
        failing = f"Postgres could not archive its write-ahead log {last}, and keeps all of it until it can"
        yield trouble("archive", "postgres", failing, f"waxseal doctor{here}")
    yield from _of_moves(found.plain["moves"], here)
    for row in found.endpoints:
        name = f"{row['tenant']}/{row['name']}"
        look = f"waxseal endpoint show {row['tenant']} {row['name']}{here}"
        yield trouble("endpoint", name, _endpoint(row), look)
    for row in found.mailboxes:
        look = f"waxseal mailbox status {row['tenant']} {row['name']}{here}"
        yield trouble("mailbox", f"{row['tenant']}/{row['name']}", _mailbox(row), look)
    for each in found.reasons[:MOST]:
        said = f"{each['count']} open at {each['stage']}, the newest of {each['newest'][:19].replace('T', ' ')}"
        look = f"waxseal dead list --rows --stage {each['stage']} --reason {each['reason']}{here}"
        yield trouble("dead_letters", each["reason"], said, look)


def _of_moves(moves: Sequence[View], here: str) -> Iterator[View]:
    for move in moves:
        if move["frozen_seconds"] is not None and move["frozen_seconds"] > LATE.total_seconds():
            said = f"frozen for {move['frozen_seconds']:.0f} s: what comes for it is kept until the mover ends its work"
            yield trouble("move", move["tenant"], said, f"waxseal tenant move {move['tenant']} --to CELL{here}")


def _endpoint(row: Row) -> str:
    undelivered = f"{row['pending']} undelivered" + (f", {row['paused']} paused" if row["paused"] else "")
    now = datetime.now(UTC)
    if row["state"] == "disabled":
        return f"disabled: {row['reason']}; {undelivered}"
    last = f": {row['last_error']}" if row["last_error"] else ""
    if row["breaker"] != "closed":
        return f"breaker {row['breaker']}{' by an operator' if row['forced'] else ''}{last}; {undelivered}"
    if row["failing_since"] is not None:
        return f"{row['streak']} failures in a row for {age(row['failing_since'], now):.0f} s{last}; {undelivered}"
    if row["not_before"] is not None and row["not_before"] > now:
        return f"asked to wait for {(row['not_before'] - now).total_seconds():.0f} s; {undelivered}"
    return f"the oldest delivery is due for {age(row['oldest_due'], now):.0f} s; {undelivered}"


def _mailbox(row: Row) -> str:
    if row["state"] == "needs_reauthorization":
        return f"needs reauthorization: {row['reason']}"
    if row["failures"]:
        return f"failed {row['failures']} times in a row: {row['error']}"
    if row["unreadable"]:
        return f"{row['unreadable']} of its folders cannot be read"
    return f"due for {age(row['next_pull_at'], datetime.now(UTC)):.0f} s and not pulled"
