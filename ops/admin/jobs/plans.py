"""Counts what a job will act on, by the predicate of its act. What is added after the count is left to the next job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from ops.admin.erasure import erase_subject
from ops.admin.jobs.arguments import Arguments, DeadLetters, Erasing, FailedSince, Missed, OfLedger, Waiting
from ops.admin.read_session import check_chosen, known_endpoint, known_tenant
from ops.admin.undelivered import endpoints_of
from ops.admin.views import View, dead_letter_view, group_view, rfc3339, undelivered_view
from ops.errors import OpsError
from pipeline.store.dead_letters import dead_letter_list
from pipeline.store.deliveries import endpoint_overview, paused, redelivery, undelivered
from pipeline.store.deliveries.redelivery import Span
from pipeline.store.ledger import scan
from schemas.job import JobKind

_NO_END: Final = 2**63 - 1
_FIRST: Final = "0001-01-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class Planned:
    """How many rows there are, the range of their times, and where a job on them begins and ends.

    `total` is None if it is not known beforehand. `rows` reads so many of them, to be shown.
    """

    total: int | None
    place: Mapping[str, Any] = field(default_factory=dict)
    oldest: datetime | None = None
    newest: datetime | None = None
    rows: Callable[[int], Sequence[View]] = lambda _limit: ()
    groups: Sequence[View] = ()

    def view(self, samples: int) -> View:
        """It as a plain object, with at most so many rows."""
        return {
            "count": self.total,
            "oldest": rfc3339(self.oldest),
            "newest": rfc3339(self.newest),
            "groups": list(self.groups),
            "samples": list(self.rows(samples)),
        }


def plan(conn: Connection, kind: JobKind, tenant: str | None, arguments: Arguments) -> Planned:
    """Counts. Raises `OpsError` for names that do not exist, and for an act that is not possible now."""
    match arguments:
        case DeadLetters():
            return _dead_letters(conn, tenant, arguments)
        case FailedSince():
            return _failed(conn, str(tenant), arguments)
        case Missed():
            return _missed(conn, str(tenant), arguments, goes_on=kind == "endpoint_replay")
        case Waiting():
            return _waiting(conn, str(tenant), arguments)
        case OfLedger():
            return _ledger(conn, tenant, arguments)
        case Erasing():
            return _erasing(conn, str(tenant), arguments)
    raise TypeError(type(arguments))


def _dead_letters(conn: Connection, tenant: str | None, arguments: DeadLetters) -> Planned:
    wanted = arguments.wanted(tenant)
    check_chosen(conn, wanted)
    groups = dead_letter_list.count(conn, wanted)
    return Planned(
        sum(each.count for each in groups),
        {
            "after": min((each.first for each in groups), default=0) - 1,
            "last": max((each.last for each in groups), default=-1),
            "messages": any(each.stage in ("admit", "append") for each in groups),
        },
        min((each.oldest for each in groups), default=None),
        max((each.newest for each in groups), default=None),
        lambda limit: [dead_letter_view(row) for row in dead_letter_list.dead_letters(conn, wanted, _NO_END, limit)],
        [group_view(each) for each in groups],
    )


def _missed(conn: Connection, tenant: str, arguments: Missed, *, goes_on: bool) -> Planned:
    id_ = known_endpoint(conn, known_tenant(conn, tenant), arguments.endpoint)
    state = next((row["state"] for row in endpoint_overview.endpoints(conn, tenant, arguments.endpoint)), "removed")
    if state == "removed":
        raise OpsError(f"{tenant}/{arguments.endpoint} was removed: configure it again")
    if goes_on and state == "disabled":
        raise OpsError(f"{tenant}/{arguments.endpoint} is disabled: enable it, so that what it missed can be delivered")
    found = paused.count(conn, id_)
    place = {"until": None if found.newest is None else found.newest.isoformat()}
    return Planned(
        found.count, place, found.oldest, found.newest, partial(_deliveries, conn, partial(paused.oldest, conn, id_))
    )


def _failed(conn: Connection, tenant: str, arguments: FailedSince) -> Planned:
    id_ = known_endpoint(conn, known_tenant(conn, tenant), arguments.endpoint)
    span = Span(id_, arguments.since, arguments.until)
    found = redelivery.count(conn, span)
    place = {"after": [_FIRST, 0], "newest": found.newest and found.newest.isoformat(), "last": found.last or 0}
    rows = partial(_deliveries, conn, partial(redelivery.sample, conn, span))
    return Planned(found.count, place, found.oldest, found.newest, rows)


def _waiting(conn: Connection, tenant: str, arguments: Waiting) -> Planned:
    now, ids = datetime.now(UTC), list(endpoints_of(conn, tenant, arguments.endpoint).values())
    found = undelivered.planned(conn, ids, arguments.ids, now)
    sample = partial(undelivered.sample_planned, conn, ids, arguments.ids, now)
    return Planned(
        sum(each.count for each in found),
        {
            "now": now.isoformat(),
            "after": min((each.first for each in found), default=0) - 1,
            "last": max((each.last for each in found), default=-1),
        },
        min((each.earliest for each in found), default=None),
        max((each.latest for each in found), default=None),
        partial(_deliveries, conn, sample),
    )


def _erasing(conn: Connection, tenant: str, arguments: Erasing) -> Planned:
    chain = erase_subject.chain(conn, tenant, UUID(arguments.chain))
    counted = erase_subject.counted(conn, chain, arguments.seqs)
    name = arguments.subject_name and chain.subject is not None
    return Planned(counted.erasable, {"after": -1, "last": counted.last, "name": name})


def _ledger(conn: Connection, tenant: str | None, arguments: OfLedger) -> Planned:
    if tenant is None:
        return Planned(scan.size(conn)[1])
    known_tenant(conn, tenant)
    return Planned(None if arguments.subject is not None else scan.size_of(conn, tenant))


def _deliveries(conn: Connection, ids: Callable[[int], Sequence[int]], limit: int) -> Sequence[View]:
    return [undelivered_view(row) for row in undelivered.given(conn, ids(limit))]
