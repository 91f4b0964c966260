"""Between steps 6 and 7, claim: one round over the endpoints that have due deliveries."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from pipeline.delivery.allowance import available, shares, split, wanted
from pipeline.delivery.breaker import probing
from pipeline.store.deliveries import claims, endpoint_health
from schemas.allowance import Allowance, Standing
from schemas.delivery import Claim


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease under which deliveries are claimed."""

    id: UUID
    now: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of a round for one endpoint: deliveries leased before it, granted to it and claimed."""

    leased: int
    granted: int
    claimed: int
    more: bool  # more may be due and may be allowed
    excess: int  # leases that must be settled before its window admits claims again
    look_at: datetime | None  # when a claim may be allowed again, or something is due, if that is known
    held: bool = False  # something is due, and no claim is allowed


@dataclass(frozen=True, slots=True)
class Round:
    """The claims of one round, and its result for each active endpoint."""

    claims: Sequence[Claim]
    looked: Mapping[int, Looked]


@dataclass(frozen=True, slots=True)
class _Demand:
    standing: Standing
    window: int
    allowed: Allowance
    due: bool  # something is due


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a round could claim, and how many deliveries are leased already, counted up to a bound."""

    demands: Sequence[_Demand]
    leased: int

    @property
    def guarded(self) -> bool:
        """Whether a health row must be locked before the claim, so that `claim_from` needs a transaction."""
        return any(each.standing.guarded and each.allowed.total for each in self.demands)


Window = Callable[[Standing], int]
"""The most deliveries of an endpoint that may be leased at once."""

_ENDLESS: Final = 1_000_000_000


def claim(
    conn: Connection,
    endpoint_ids: Collection[int],
    lease: Lease,
    window: Window,
    *,
    limit: int,
    max_leased: int,
    random: float,
) -> Round:
    """Claims its fair share for each of the endpoints, `limit` deliveries in all.

    Runs in the caller's transaction, whose COMMIT does not wait for the disk, so use that for nothing else. A claim never
    waits for a lock: rows that another claimant holds are skipped. Tokens of a rate limit are taken here and never returned,
    so a delivery that is handed back untried costs its endpoint a token.
    """
    outlook = look(conn, endpoint_ids, lease.now, window, max_leased)
    return claim_from(conn, outlook, lease, window, limit=limit, max_leased=max_leased, random=random)


def look(conn: Connection, endpoint_ids: Collection[int], now: datetime, window: Window, max_leased: int) -> Outlook:
    """What could be claimed for each of the endpoints. One statement, which changes nothing."""
    standings, leased = claims.look(conn, endpoint_ids, max_leased)
    return Outlook([_demand(each, window, now) for each in standings if each.state == "active"], leased)


def claim_from(
    conn: Connection, outlook: Outlook, lease: Lease, window: Window, *, limit: int, max_leased: int, random: float
) -> Round:
    """Claims as `claim` does, from a preceding `look`: one statement, unless something is `guarded`."""
    demands = _guarded(conn, outlook.demands, window, lease.now)
    halves = _granted(demands, lease.now, limit, max_leased - outlook.leased, random)
    got = claims.claim(conn, halves, lease.id, lease.now, lease.until)
    counts = Counter(each.endpoint_id for each in got)
    _take(conn, [each.standing for each in demands if counts[each.standing.endpoint_id]], counts, lease.now)
    looked = {
        each.standing.endpoint_id: _looked(each, halves.get(each.standing.endpoint_id, Allowance()), counts) for each in demands
    }
    return Round(got, looked)


def claim_anything(conn: Connection, lease: Lease, limit: int) -> Sequence[Claim]:
    """Claims at most `limit` due deliveries of all endpoints, without a bound on leases: for benchmarks and tests."""
    return claim(conn, claims.survey(conn), lease, lambda _: _ENDLESS, limit=limit, max_leased=_ENDLESS, random=0.5).claims


def _demand(standing: Standing, window: Window, now: datetime) -> _Demand:
    most = window(standing)
    return _Demand(standing, most, wanted(standing, most, now), any(due is not None and due <= now for due in standing.dues))


def _guarded(conn: Connection, demands: Sequence[_Demand], window: Window, now: datetime) -> Sequence[_Demand]:
    """Locks the health of the endpoints whose probe or tokens two claimants could both take, and reads those endpoints again.

    Only what is read under the lock counts: its previous holder may have claimed the probe. Endpoints that another claimant
    has locked are left out of this round.
    """
    guarded = {each.standing.endpoint_id for each in demands if each.standing.guarded and each.allowed.total}
    if not guarded:
        return demands
    locked = endpoint_health.lock_free(conn, guarded)
    again = [_demand(each, window, now) for each in claims.look(conn, locked)[0] if each.state == "active"]
    return [*(each for each in demands if each.standing.endpoint_id not in guarded), *again]


def _granted(demands: Sequence[_Demand], now: datetime, limit: int, surplus: int, random: float) -> dict[int, Allowance]:
    """The share of each endpoint that may claim anything, divided between its lanes."""
    allowed = {each.standing.endpoint_id: each.allowed.total for each in demands if each.allowed.total}
    if not allowed:
        return {}
    leased = {each.standing.endpoint_id: each.standing.leased for each in demands}
    granted = shares(allowed, leased, surplus, limit)
    return {
        each.standing.endpoint_id: split(share, each.standing, now, random)
        for each in demands
        if (share := granted.get(each.standing.endpoint_id))
    }


def _looked(demand: _Demand, granted: Allowance, counts: Mapping[int, int]) -> Looked:
    standing, claimed = demand.standing, counts.get(demand.standing.endpoint_id, 0)
    return Looked(
        leased=standing.leased,
        granted=granted.total,
        claimed=claimed,
        more=claimed == granted.total or bool(granted.first and granted.again),
        excess=standing.leased + claimed - demand.window * 3 // 4,
        look_at=demand.allowed.look_at,
        held=not granted.total and demand.due,
    )


def _take(conn: Connection, claimed: Sequence[Standing], counts: Mapping[int, int], now: datetime) -> None:
    """Writes which tokens were taken and which probes were let through."""
    tokens = {
        each.endpoint_id: available(each, now) - counts[each.endpoint_id] for each in claimed if each.rate_limit is not None
    }
    endpoint_health.take_tokens(conn, tokens, now)
    probes = {each.endpoint_id: probing(each.health, now) for each in claimed if each.health.breaker == "open"}
    endpoint_health.write(conn, probes, now)
