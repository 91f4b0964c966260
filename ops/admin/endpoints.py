"""What operators do to one endpoint: turn it on and off, force its breaker. Each act is one transaction, audit and all."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Named, Step
from ops.admin.read_session import known_endpoint, known_tenant, snapshot
from ops.admin.views import View, endpoint_view
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.delivery.breaker import force_closed, force_open, released
from pipeline.delivery.settle_endpoint import begin_anew
from pipeline.store.admin import audit
from pipeline.store.deliveries import endpoint_health, endpoint_overview, notify, paused
from pipeline.store.deliveries.endpoint_health import EventKind
from pipeline.store.deliveries.paused import Missed
from schemas.endpoint_health import Health

REMOVED = "it was removed: configure it again with `waxseal apply`"


def list_endpoints(engine: Engine, tenant: str | None) -> Iterator[View]:
    """How the endpoints fare. Raises `OpsError` for a tenant that does not exist."""
    with snapshot(engine) as conn:
        if tenant is not None:
            known_tenant(conn, tenant)
        yield from map(endpoint_view, endpoint_overview.endpoints(conn, tenant))


def show_endpoint(engine: Engine, named: Named) -> View:
    """How one endpoint fares. Raises `OpsError` for one that does not exist."""
    with snapshot(engine) as conn:
        _known(conn, named)
        for row in endpoint_overview.endpoints(conn, named.tenant, named.name):
            return endpoint_view(row)
    raise OpsError(f"{named.tenant}/{named.name}: {REMOVED}")


def missed_by(engine: Engine, named: Named) -> Missed:
    """What the endpoint missed. Raises `OpsError` for one that does not exist, or was removed."""
    with transaction(engine) as conn:
        return paused.count(conn, _present(conn, named))


def replaying(named: Named) -> Step:
    """Makes the next of what it missed due. Raises `OpsError` once the endpoint is removed."""
    return lambda conn, size: paused.release(conn, _present(conn, named), datetime.now(UTC), size) or None


def discarding(named: Named) -> Step:
    """Gives up the next of what it missed. Raises `OpsError` once the endpoint is removed."""
    return lambda conn, size: paused.discard(conn, _present(conn, named), datetime.now(UTC), size) or None


def enable(engine: Engine, named: Named) -> bool:
    """Turns it on, its health forgotten; whether it was off. What it missed stays as it is."""

    def turn(conn: Connection, id_: int, now: datetime) -> bool:
        if endpoint_overview.state(conn, id_) != "disabled":
            return False
        endpoint_overview.turn_on(conn, id_)
        begin_anew(conn, id_, now, f"by {named.who}")
        return True

    return _act(engine, named, "endpoint enable", turn)


def disable(engine: Engine, named: Named, reason: str) -> bool:
    """Turns it off; whether it was on. What it is owed is kept."""

    def turn(conn: Connection, id_: int, now: datetime) -> bool:
        if endpoint_overview.state(conn, id_) != "active":
            return False
        endpoint_overview.turn_off(conn, id_, reason)
        endpoint_health.note(conn, [("endpoint_disabled", id_, f"by {named.who}: {reason}")], now)
        return True

    return _act(engine, named, "endpoint disable", turn)


def open_breaker(engine: Engine, named: Named) -> bool:
    """Forces it open; whether it was not before."""
    return _force(engine, named, "endpoint open-breaker", force_open)


def close_breaker(engine: Engine, named: Named) -> bool:
    """Forces it closed, and ends a wait that the endpoint asked for; whether it was not before."""
    return _force(engine, named, "endpoint close-breaker", lambda before, _now: force_closed(before))


def release_breaker(engine: Engine, named: Named) -> bool:
    """Leaves it to itself again; whether it was forced."""
    return _force(engine, named, "endpoint release", released)


def _force(engine: Engine, named: Named, act: str, move: Callable[[Health, datetime], Health]) -> bool:
    def turn(conn: Connection, id_: int, now: datetime) -> bool:
        before = endpoint_health.lock(conn, [id_])[id_]
        after = move(before, now)
        if before == after:
            return False
        endpoint_health.write(conn, {id_: after}, now)
        if after.breaker not in (before.breaker, "half_open"):
            kind: EventKind = "breaker_opened" if after.breaker == "open" else "breaker_closed"
            endpoint_health.note(conn, [(kind, id_, f"forced by {named.who}")], now)
        notify.ring(conn, [id_])
        return True

    return _act(engine, named, act, turn)


def _act(engine: Engine, named: Named, act: str, turn: Callable[[Connection, int, datetime], bool]) -> bool:
    """Does it and notes it; an act that changes nothing is not noted. Raises `OpsError` for an endpoint that there is not."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        id_ = _present(conn, named)
        moved = turn(conn, id_, now)
        if moved:
            audit.record(conn, named.who, act, {"tenant": named.tenant, "endpoint": named.name}, 1, now, "done")
    return moved


def _present(conn: Connection, named: Named) -> int:
    """The id of an endpoint that is not removed, and stays so until the transaction ends."""
    id_ = _known(conn, named)
    if endpoint_overview.state(conn, id_) == "removed":
        raise OpsError(f"{named.tenant}/{named.name}: {REMOVED}")
    return id_


def _known(conn: Connection, named: Named) -> int:
    return known_endpoint(conn, known_tenant(conn, named.tenant), named.name)
