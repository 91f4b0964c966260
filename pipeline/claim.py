"""Between rooms 6 and 7, claim: one round over the endpoints in which something is due."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from pipeline.breaker import probing
from pipeline.room import Room, Standing, available, shares, split, wanted
from pipeline.store import claims, health
from schemas.delivery import Claim


@dataclass(frozen=True, slots=True)
class Lease:
    """Under which deliveries are claimed."""

    id: UUID
    now: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Looked:
    """What one endpoint came to in a round: how much was leased before it, how much was granted and how much was claimed."""

    leased: int
    granted: int
    claimed: int
    look_at: datetime | None  # when there may be room again, if that is known


@dataclass(frozen=True, slots=True)
class Round:
    """The claims of one round, and how it went at each endpoint; `aside` are endpoints that nothing is to be sent to."""

    claims: Sequence[Claim]
    looked: Mapping[int, Looked]
    aside: Collection[int]


def claim(conn: Connection, windows: Mapping[int, int], lease: Lease, *, limit: int, max_leased: int, random: float) -> Round:
    """Claims of each endpoint in `windows` (id -> most of it that may be leased) its fair share, `limit` in all.

    Runs in the caller's transaction, which need not be durable when it commits, so use it for nothing else. Claims wait for
    nobody: what another claimant holds is left to it. Tokens of a rate are taken here and never given back, so a delivery
    that is handed back untried costs its endpoint a token.
    """
    claims.forgettable(conn)
    standings = claims.look(conn, windows)
    active = [each for each in standings if each.state == "active"]
    rooms = {each.endpoint_id: wanted(each, windows[each.endpoint_id], lease.now) for each in active}
    active, rooms = _guarded(conn, active, rooms, windows, lease.now)
    surplus = max_leased - claims.leased(conn, max_leased)
    sizes = {each.endpoint_id: rooms[each.endpoint_id].total for each in active if rooms[each.endpoint_id].total}
    granted = shares(sizes, {each.endpoint_id: each.leased for each in active}, surplus, limit)
    halves = {
        each.endpoint_id: split(granted[each.endpoint_id], each, lease.now, random)
        for each in active
        if granted.get(each.endpoint_id)
    }
    got = claims.claim(conn, halves, lease.id, lease.now, lease.until)
    counts = _counts(got)
    _take(conn, [each for each in active if counts.get(each.endpoint_id)], counts, lease.now)
    looked = {
        each.endpoint_id: Looked(
            each.leased,
            granted.get(each.endpoint_id, 0),
            counts.get(each.endpoint_id, 0),
            rooms[each.endpoint_id].look_at,
        )
        for each in active
    }
    return Round(got, looked, [each.endpoint_id for each in standings if each.state != "active"])


def _guarded(
    conn: Connection, active: list[Standing], rooms: dict[int, Room], windows: Mapping[int, int], now: datetime
) -> tuple[list[Standing], dict[int, Room]]:
    """Looks again at those of whose probe or tokens two claimants could take too much, once their health is locked.

    Only what is read after the lock counts: whoever held it before may have claimed the probe. Those that another holds are
    left out of this round.
    """
    guarded = {each.endpoint_id for each in active if each.guarded and rooms[each.endpoint_id].total}
    if not guarded:
        return active, rooms
    locked = health.lock_free(conn, guarded)
    again = [each for each in claims.look(conn, locked) if each.state == "active"] if locked else []
    free = [each for each in active if each.endpoint_id not in guarded]
    looked = {each.endpoint_id: wanted(each, windows[each.endpoint_id], now) for each in again}
    return [*free, *again], {**{each.endpoint_id: rooms[each.endpoint_id] for each in free}, **looked}


def _take(conn: Connection, claimed: Sequence[Standing], counts: Mapping[int, int], now: datetime) -> None:
    """Writes down the tokens that were taken and the probes that were let through."""
    tokens = {
        each.endpoint_id: available(each, now) - counts[each.endpoint_id] for each in claimed if each.rate_limit is not None
    }
    health.take_tokens(conn, tokens, now)
    probes = {each.endpoint_id: probing(each.health, now) for each in claimed if each.health.breaker == "open"}
    health.write(conn, probes, now)


def _counts(got: Sequence[Claim]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in got:
        counts[each.endpoint_id] = counts.get(each.endpoint_id, 0) + 1
    return counts
