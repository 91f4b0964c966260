"""Acts of operators on one endpoint: enable, disable, force its breaker. Act and audit record are one transaction."""

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


class NotDecided(OpsError):
    """The endpoint missed deliveries, and nothing says what is to become of them."""


def list_endpoints(engine: Engine, tenant: str | None) -> Iterator[View]:
    """State, health and backlog of the endpoints. Raises `OpsError` for a tenant that does not exist."""
    with snapshot(engine) as conn:
        if tenant is not None:
            known_tenant(conn, tenant)
        yield from map(endpoint_view, endpoint_overview.endpoints(conn, tenant))


def show_endpoint(engine: Engine, named: Named) -> View:
    """State, health and backlog of one endpoint. Raises `OpsError` for one that does not exist."""
    with snapshot(engine) as conn:
        _known(conn, named)
        for row in endpoint_overview.endpoints(conn, named.tenant, named.name):
            return endpoint_view(row)
    raise OpsError(f"{named.tenant}/{named.name}: {REMOVED}")


def missed_by(engine: Engine, named: Named) -> Missed:
    """The paused deliveries, which the endpoint missed. Raises `OpsError` for one that does not exist, or was removed."""
    with transaction(engine) as conn:
        return paused.count(conn, _present(conn, named))


def replaying(named: Named, until: datetime | None = None) -> Step:
    """A step that makes deliveries due that were missed up to `until`. It raises `OpsError` once the endpoint is removed."""
    return lambda conn, size: paused.release(conn, _present(conn, named), datetime.now(UTC), size, until=until) or None


def discarding(named: Named, until: datetime | None = None) -> Step:
    """A step that discards deliveries that were missed up to `until`. It raises `OpsError` once the endpoint is removed."""
    return lambda conn, size: paused.discard(conn, _present(conn, named), datetime.now(UTC), size, until) or None


def enable(engine: Engine, named: Named) -> bool:
    """Enables the endpoint and resets its health; returns whether it was disabled. Missed deliveries stay paused."""

    def change(conn: Connection, id_: int, now: datetime) -> bool:
        if endpoint_overview.state(conn, id_) != "disabled":
            return False
        endpoint_overview.turn_on(conn, id_)
        begin_anew(conn, id_, now, f"by {named.who}")
        return True

    return _act(engine, named, "endpoint enable", change)


def disable(engine: Engine, named: Named, reason: str) -> bool:
    """Disables the endpoint; returns whether it was active. Its deliveries are kept."""

    def change(conn: Connection, id_: int, now: datetime) -> bool:
        if endpoint_overview.state(conn, id_) != "active":
            return False
        endpoint_overview.turn_off(conn, id_, reason)
        endpoint_health.note(conn, [("endpoint_disabled", id_, f"by {named.who}: {reason}")], now)
        return True

    return _act(engine, named, "endpoint disable", change)


def open_breaker(engine: Engine, named: Named) -> bool:
    """Forces the breaker open; returns whether that changed anything."""
    return _force(engine, named, "endpoint open-breaker", force_open)


def close_breaker(engine: Engine, named: Named) -> bool:
    """Forces the breaker closed and ends a wait that the endpoint asked for; returns whether that changed anything."""
    return _force(engine, named, "endpoint close-breaker", lambda before, _now: force_closed(before))


def release_breaker(engine: Engine, named: Named) -> bool:
    """Ends the forced state; returns whether the breaker was forced."""
    return _force(engine, named, "endpoint release", released)


def _force(engine: Engine, named: Named, act: str, move: Callable[[Health, datetime], Health]) -> bool:
    def change(conn: Connection, id_: int, now: datetime) -> bool:
        before = endpoint_health.lock(conn, [id_])[id_]
        after = move(before, now)
        if before == after:
            return False
        endpoint_health.write(conn, {id_: after}, now)
        if after.breaker not in (before.breaker, "half_open"):
            kind: EventKind = "breaker_opened" if after.breaker == "open" else "breaker_closed"
            endpoint_health.note(conn, [(kind, id_, f"forced by {named.who}")], now)
        notify.send(conn, [id_])
        return True

    return _act(engine, named, act, change)


def _act(engine: Engine, named: Named, act: str, change: Callable[[Connection, int, datetime], bool]) -> bool:
    """Runs and audits the act; one that changes nothing is not audited. Raises `OpsError` if there is no such endpoint."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        id_ = _present(conn, named)
        moved = change(conn, id_, now)
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
