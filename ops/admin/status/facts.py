"""What the database says of the whole system, as `waxseal status` shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection
from sqlalchemy import RowMapping as Row

from ops.admin.timeline import by_reason
from ops.admin.views import View
from ops.errors import one_line
from ops.runtime.db import damaged
from pipeline.store.admin import counts, notices, removal, server_facts
from pipeline.store.admin.server_facts import Archiving
from pipeline.store.dead_letters import dead_letter_list
from pipeline.store.deliveries import endpoint_overview
from pipeline.store.ledger import entries as ledger_entries
from pipeline.store.ledger import ledger_claims, retention, set_aside
from pipeline.store.log import checkpoints, pending
from pipeline.store.mail import mailbox_overview
from pipeline.store.moving import moves
from pipeline.store.moving.moves import Move
from schemas.dead_letter import DeadLetterFilter
from schemas.entry import BrokenChain

LATE: Final = timedelta(seconds=60)  # that an endpoint's oldest delivery, or a mailbox, is due before it is called in trouble
MOST: Final = 50  # endpoints, and mailboxes, shown by name
_RECENT: Final = timedelta(hours=1)  # for which a crash loop is shown


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in Postgres, and for how many seconds the oldest has been due."""

    overdue: int
    overdue_seconds: float | None
    future: int
    leased: int
    lost_seconds: float | None  # since the first lease ended that nobody claimed again
    mailboxes: int
    mailbox_seconds: float | None
    unsequenced: int  # entries that have no position in their log yet
    unsequenced_seconds: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that Postgres says. `plain` are values of the status that need no further thought."""

    backlog: Backlog
    plain: View
    reasons: Sequence[View]
    endpoints: Sequence[Row] = ()
    mailboxes: Sequence[Row] = ()
    crash_loops: Sequence[str] = ()
    refused_logs: Sequence[Row] = ()
    chains_aside: Sequence[BrokenChain] = ()
    retention_held: str | None = None  # why no content is erased by its retention


#: The names of `Facts.plain`.
PLAIN: Final = (
    *("deliveries", "deliveries_estimated", "deliveries_removed", "oldest_due_seconds", "dead_letters", "on_broken_chains"),
    *("oldest_dead_letter_seconds", "disabled_endpoints", "mailboxes", "moves", "wal_archive", "ledger", "ledger_error"),
)


def backlog(conn: Connection) -> Backlog:
    """What waits just now."""
    now = datetime.now(UTC)
    deliveries = counts.pending(conn, now)
    leased, lost = counts.leased(conn, now)
    due, since = mailbox_overview.due(conn, now)
    _, unsequenced = pending.sizes(conn)
    oldest = age(deliveries.oldest, now) if deliveries.overdue else None
    waited = age(pending.oldest(conn), now)
    return Backlog(
        deliveries.overdue, oldest, deliveries.future, leased, age(lost, now), due, age(since, now), unsequenced, waited
    )


def facts(conn: Connection) -> Facts:
    """Everything, in one snapshot of the database."""
    now = datetime.now(UTC)
    groups = dead_letter_list.count(conn, DeadLetterFilter())
    found = Facts(
        backlog(conn),
        _plain(conn, groups, now),
        by_reason(groups),
        endpoint_overview.troubled(conn, now, now - LATE, MOST),
        mailbox_overview.troubled(conn, now - LATE, MOST),
        notices.crash_loops(conn, now - _RECENT),
        checkpoints.refusals(conn),
        _chains_aside(conn),
        None if (run := retention.last_run(conn)) is None else run.held,
    )
    return replace(found, plain={**found.plain, **_ledger(conn)})


def _plain(conn: Connection, groups: Sequence[dead_letter_list.Group], now: datetime) -> View:
    counted = counts.deliveries(conn)
    by_stage: dict[str, int] = {}
    for each in groups:
        by_stage[each.stage] = by_stage.get(each.stage, 0) + each.count
    return {
        "deliveries": counted.by_state,
        "deliveries_estimated": counted.estimated,
        "deliveries_removed": removal.past_deliveries(conn),
        "oldest_due_seconds": age(counted.oldest_due, now),
        "dead_letters": by_stage,
        "on_broken_chains": sum(g.count for g in groups if (g.stage, g.reason) == ("append", "chain_broken")),
        "oldest_dead_letter_seconds": age(min((each.oldest for each in groups), default=None), now),
        "disabled_endpoints": counts.disabled_endpoints(conn),
        "mailboxes": dict(mailbox_overview.states(conn)),
        "wal_archive": _archive(server_facts.archiving(conn)),
        "moves": [_move_view(each, now) for each in moves.all_moves(conn)],
    }


def _archive(found: Archiving) -> View | None:
    """How far the write-ahead log is archived; None if it is not."""
    if not found.wanted:
        return None
    at = found.archived_at and found.archived_at.isoformat()
    return {"place": found.place or None, "behind_bytes": found.behind, "archived_at": at, "failing": found.failing}


def _move_view(move: Move, now: datetime) -> View:
    """A tenant that is on its way between cells, or came or went; and for how long nothing has been recorded for it here."""
    frozen = age(move.frozen_at, now) if move.state == "moving" else None
    return {"tenant": move.tenant, "state": move.state, "cell": move.cell, "epoch": move.epoch, "frozen_seconds": frozen}


def _chains_aside(conn: Connection) -> Sequence[BrokenChain]:
    """The chains that were set aside and are broken now: nobody looks at a mended one before its next message."""
    found = set_aside.still_aside(conn, MOST)
    subjects = {row.key: "" for row in found}
    if found:
        try:
            with conn.begin_nested():
                broken = ledger_entries.broken_chains(conn, list(subjects))
                subjects = {key: chain.subject or "" for key, chain in broken.items()}
        except Exception as error:
            if not damaged(error):
                raise
    return [BrokenChain(row.tenant, subjects[row.key], row.chain_id, row.fault) for row in found if row.key in subjects]


def _ledger(conn: Connection) -> View:
    """The ledger's size, read last: if the rows of chains cannot be read, the other figures are shown all the same."""
    size = counts.ledger_bytes(conn)
    try:
        found = counts.ledger_size(conn)
    except Exception as error:
        if not damaged(error):
            raise
        what = f"Postgres cannot read it: {one_line(error)}"
        unread = {"entries": None, "chains": None, "bytes": size, "estimated": False}
        return {"ledger": unread, "ledger_error": what, "claims": []}
    counted = {"entries": found.entries, "chains": found.chains, "bytes": size, "estimated": found.estimated}
    return {"ledger": counted, "ledger_error": None, "claims": _claims(conn)}


def _claims(conn: Connection) -> list[View]:
    """What can be claimed of each tenant's ledger: the word, when it was checked, and what is missing for the next."""
    return [
        {"tenant": each.tenant, "claim": each.word, "checked_at": each.checked_at.isoformat(), "missing": each.missing}
        for each in ledger_claims.kept(conn)
    ]


def age(since: datetime | None, now: datetime) -> float | None:
    """Seconds since then; 0 for a time in the future."""
    return None if since is None else round(max(0.0, (now - since).total_seconds()), 3)
