"""Timelines, deliveries and dead letters, read in pages: no transaction stays open while the caller consumes them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.read_session import chain_of, check_chosen, known_endpoint, known_tenant, snapshot, tenant_keys
from ops.admin.views import (
    View,
    dead_letter_view,
    delivery_view,
    entry_view,
    group_view,
    reason_view,
    whole_dead_letter_view,
)
from ops.errors import Unknown
from ops.runtime.blobs import Blobs, open_blobs
from ops.settings import Settings
from pipeline.dedupe import chain_key
from pipeline.errors import BlobLost
from pipeline.ledger.erase import Erasure, Erasures, erasures
from pipeline.store.admin import audit, queries
from pipeline.store.dead_letters import dead_letter_list
from pipeline.store.ledger import scan as ledger_scan
from schemas.dead_letter import DeadLetterFilter

PAGE: Final = 200
_NO_END: Final = 2**62
_ACTS: Final = {"replayed": "dead replay", "discarded": "dead discard"}  # the act that leads to each state


def timeline(
    engine: Engine,
    settings: Settings,
    tenant: str,
    subject: str,
    after: int = -1,
    limit: int | None = None,
    *,
    bodies: bool = True,
    scan: bool = True,
) -> Iterator[View]:
    """The subject's entries after number `after`, oldest first. Raises `OpsError` for a tenant that does not exist.

    `scan`: see `chain_of`.
    """
    with snapshot(engine) as conn:
        keys = tenant_keys(conn, settings) or {}
        key = chain_key(keys[tenant], subject) if known_tenant(conn, tenant) in keys else None
        chain = chain_of(conn, tenant, subject, key, scan=scan)
    if chain is None:
        return
    blobs, erased = open_blobs(settings), _Erased(engine, chain)
    left = _NO_END if limit is None else limit
    while left > 0:
        with snapshot(engine) as conn:
            page = queries.timeline(conn, chain, after, min(left, PAGE), bodies=bodies)
        for row in page:
            body = row["body"]
            if not bodies:
                body = None
            elif row["size"] is not None and body is None:
                with snapshot(engine) as conn:
                    body = ledger_scan.body(conn, chain.bytes, row["seq"])
            elif row["blob"] is not None:
                body = _fetched(blobs, tenant, row["blob"])
            yield entry_view(row, chain.hex, body, erased.of(row["seq"]) if row["attributes"] is None else None)
        if not page:
            return
        after, left = page[-1]["seq"], left - len(page)


class _Erased:
    """The erasures of a chain, read when an entry without content is found."""

    def __init__(self, engine: Engine, chain: UUID) -> None:
        self._engine = engine
        self._chain = chain
        self._known = Erasures(())

    def of(self, seq: int) -> Erasure | None:
        """The erasure that took the entry's content, perhaps just now; None if there is none."""
        found = self._known.of(seq)
        if found is None:
            with snapshot(self._engine) as conn:
                self._known = erasures(conn, self._chain)
            found = self._known.of(seq)
        return found


def deliveries(
    engine: Engine, tenant: str, state: str | None = None, endpoint: str | None = None, limit: int | None = None
) -> Iterator[View]:
    """The tenant's deliveries with their attempts, newest first. Raises `OpsError` for names that do not exist."""
    with snapshot(engine) as conn:
        known_tenant(conn, tenant)
        endpoint_id = None if endpoint is None else known_endpoint(conn, tenant, endpoint)
    before, left = _NO_END, _NO_END if limit is None else limit
    while left > 0:
        with snapshot(engine) as conn:
            page = queries.deliveries(conn, tenant, state, endpoint_id, before, min(left, PAGE))
            tries = queries.attempts(conn, [row["id"] for row in page])
        yield from (delivery_view(row, tries[row["id"]]) for row in page)
        if not page:
            return
        before, left = page[-1]["id"], left - len(page)


def dead_letters(engine: Engine, wanted: DeadLetterFilter, limit: int | None = None, before: int = _NO_END) -> Iterator[View]:
    """The dead letters that match, with ids below `before`, newest first.

    Raises `OpsError` for a tenant or endpoint that does not exist.
    """
    with snapshot(engine) as conn:
        check_chosen(conn, wanted)
    left = _NO_END if limit is None else limit
    while left > 0:
        with snapshot(engine) as conn:
            page = dead_letter_list.dead_letters(conn, wanted, before, min(left, PAGE))
        yield from map(dead_letter_view, page)
        if not page:
            return
        before, left = page[-1]["id"], left - len(page)


def dead_letters_by_reason(engine: Engine, wanted: DeadLetterFilter, limit: int | None = None) -> Iterator[View]:
    """The dead letters that match, in groups of one stage and reason, the largest first.

    Raises `OpsError` for a tenant or endpoint that does not exist.
    """
    with snapshot(engine) as conn:
        check_chosen(conn, wanted)
        found = by_reason(dead_letter_list.count(conn, wanted))
    yield from found[:limit]


def count_groups(engine: Engine, wanted: DeadLetterFilter) -> list[View]:
    """The dead letters that match in groups of one stage, reason, tenant and endpoint, the largest first.

    Raises `OpsError` for a tenant or endpoint that does not exist.
    """
    with snapshot(engine) as conn:
        check_chosen(conn, wanted)
        return [group_view(each) for each in dead_letter_list.count(conn, wanted)]


def by_reason(groups: Iterable[dead_letter_list.Group]) -> list[View]:
    """Groups of dead letters joined to one for each stage and reason, the largest first."""
    joined: dict[tuple[str, str], list[dead_letter_list.Group]] = defaultdict(list)
    for each in groups:
        joined[each.stage, each.reason].append(each)
    return sorted(map(reason_view, joined.values()), key=lambda view: -view["count"])


def count_dead_letters(engine: Engine, wanted: DeadLetterFilter) -> int:
    """How many dead letters match."""
    with snapshot(engine) as conn:
        return sum(group.count for group in dead_letter_list.count(conn, wanted))


def dead_letter(engine: Engine, settings: Settings, id_: int, tenant: str | None = None, *, content: bool = True) -> View:
    """One dead letter, of that tenant if it is given, with all that is kept of it, and the act that closed it.

    Raises `Unknown` if there is none. Without `content`, a body in the blob store is not fetched.
    """
    with snapshot(engine) as conn:
        row = dead_letter_list.dead_letter(conn, id_, tenant)
        if row is None:
            raise Unknown(f"there is no dead letter {id_}; `waxseal dead list --all` shows them all")
        delivery = row["delivery_id"]
        tries = [] if delivery is None else queries.attempts(conn, [delivery])[delivery]
        act = _decision(conn, row)
    fetched = content and row["blob"] is not None
    body = _fetched(open_blobs(settings), row["tenant"], row["blob"]) if fetched else row["body"]
    return whole_dead_letter_view(row, tries, act, None if body is None else bytes(body))


def _fetched(blobs: Blobs, tenant: str, reference: str) -> bytes | None:
    """The body, or None if the blob store has lost it; `waxseal verify` reports that."""
    try:
        return blobs.get(tenant, reference)
    except BlobLost:
        return None


def _decision(conn: Connection, dead_letter: Row) -> Row | None:
    """The audited act that replayed or discarded it."""
    act = _ACTS.get(dead_letter["state"])
    return None if act is None else audit.under_way(conn, dead_letter["decided_by"], act, dead_letter["decided_at"])
