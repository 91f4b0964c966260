"""Between rooms 6 and 7, claim: one round over the endpoints in which something is due."""

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
    more: bool  # more may be due, and there may be room for it
    excess: int  # leases that must be settled before its window has room again
    look_at: datetime | None  # when there may be room again, or something due, if that is known
    held: bool = False  # something is due, and there is no room for it


@dataclass(frozen=True, slots=True)
class Round:
    """The claims of one round, and how it went at each endpoint that is active."""

    claims: Sequence[Claim]
    looked: Mapping[int, Looked]


@dataclass(frozen=True, slots=True)
class _Wish:
    standing: Standing
    window: int
    room: Allowance
    due: bool  # something is


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a round could claim, and how much is leased already, counted up to a bound."""

    wishes: Sequence[_Wish]
    leased: int

    @property
    def guarded(self) -> bool:
        """Whether something has to be locked before it is claimed: then `claim_from` needs a transaction."""
        return any(wish.standing.guarded and wish.room.total for wish in self.wishes)


Window = Callable[[Standing], int]
"""The most of an endpoint that may be leased."""

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
    """Claims of each of the endpoints its fair share, `limit` in all.

    Runs in the caller's transaction, which need not be durable when it commits, so use it for nothing else. Claims wait for
    nobody: what another claimant holds is left to it. Tokens of a rate are taken here and never given back, so a delivery
    that is handed back untried costs its endpoint a token.
    """
    outlook = look(conn, endpoint_ids, lease.now, window, max_leased)
    return claim_from(conn, outlook, lease, window, limit=limit, max_leased=max_leased, random=random)


def look(conn: Connection, endpoint_ids: Collection[int], now: datetime, window: Window, max_leased: int) -> Outlook:
    """What could be claimed at each of the endpoints. One statement, which changes nothing."""
    standings, leased = claims.look(conn, endpoint_ids, max_leased)
    return Outlook([_wish(each, window, now) for each in standings if each.state == "active"], leased)


def claim_from(
    conn: Connection, outlook: Outlook, lease: Lease, window: Window, *, limit: int, max_leased: int, random: float
) -> Round:
    """Claims as `claim` does, from what was looked at before: one statement, unless something is `guarded`."""
    wishes = _guarded(conn, outlook.wishes, window, lease.now)
    halves = _granted(wishes, lease.now, limit, max_leased - outlook.leased, random)
    got = claims.claim(conn, halves, lease.id, lease.now, lease.until)
    counts = Counter(each.endpoint_id for each in got)
    _take(conn, [wish.standing for wish in wishes if counts[wish.standing.endpoint_id]], counts, lease.now)
    looked = {
        wish.standing.endpoint_id: _looked(wish, halves.get(wish.standing.endpoint_id, Allowance()), counts) for wish in wishes
    }
    return Round(got, looked)


def claim_anything(conn: Connection, lease: Lease, limit: int) -> Sequence[Claim]:
    """Claims what is due, wherever it is, `limit` at most, whatever is leased already: for benchmarks and tests."""
    return claim(conn, claims.survey(conn), lease, lambda _: _ENDLESS, limit=limit, max_leased=_ENDLESS, random=0.5).claims


def _wish(standing: Standing, window: Window, now: datetime) -> _Wish:
    most = window(standing)
    return _Wish(standing, most, wanted(standing, most, now), any(due is not None and due <= now for due in standing.dues))


def _guarded(conn: Connection, wishes: Sequence[_Wish], window: Window, now: datetime) -> Sequence[_Wish]:
    """Looks again at those of whose probe or tokens two claimants could take too much, once their health is locked.

    Only what is read after the lock counts: whoever held it before may have claimed the probe. Those that another holds are
    left out of this round.
    """
    guarded = {wish.standing.endpoint_id for wish in wishes if wish.standing.guarded and wish.room.total}
    if not guarded:
        return wishes
    locked = endpoint_health.lock_free(conn, guarded)
    again = [_wish(each, window, now) for each in claims.look(conn, locked)[0] if each.state == "active"]
    return [*(wish for wish in wishes if wish.standing.endpoint_id not in guarded), *again]


def _granted(wishes: Sequence[_Wish], now: datetime, limit: int, surplus: int, random: float) -> dict[int, Allowance]:
    """The room of each endpoint that has any, divided among all of them and between its lanes."""
    rooms = {wish.standing.endpoint_id: wish.room.total for wish in wishes if wish.room.total}
    if not rooms:
        return {}
    leased = {wish.standing.endpoint_id: wish.standing.leased for wish in wishes}
    granted = shares(rooms, leased, surplus, limit)
    return {
        wish.standing.endpoint_id: split(room, wish.standing, now, random)
        for wish in wishes
        if (room := granted.get(wish.standing.endpoint_id))
    }


def _looked(wish: _Wish, room: Allowance, counts: Mapping[int, int]) -> Looked:
    standing, claimed = wish.standing, counts.get(wish.standing.endpoint_id, 0)
    return Looked(
        leased=standing.leased,
        granted=room.total,
        claimed=claimed,
        more=claimed == room.total or bool(room.first and room.again),
        excess=standing.leased + claimed - wish.window * 3 // 4,
        look_at=wish.room.look_at,
        held=not room.total and wish.due,
    )


def _take(conn: Connection, claimed: Sequence[Standing], counts: Mapping[int, int], now: datetime) -> None:
    """Writes down the tokens that were taken and the probes that were let through."""
    tokens = {
        each.endpoint_id: available(each, now) - counts[each.endpoint_id] for each in claimed if each.rate_limit is not None
    }
    endpoint_health.take_tokens(conn, tokens, now)
    probes = {each.endpoint_id: probing(each.health, now) for each in claimed if each.health.breaker == "open"}
    endpoint_health.write(conn, probes, now)
