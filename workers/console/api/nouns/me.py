"""Who asks, which tenants there are, what is configured of them, and how the whole system stands."""

from typing import Annotated, Any, Final

from pydantic import Field

from ops.admin.status import tenants
from schemas.access import EVERYWHERE, Means, Role
from workers.console.api.operation import Answer, Asked, NoQuery, Operation
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Shape, Time


class Me(Shape):
    """Who asks, and the roles by tenant; `*`: for all of them."""

    who: str
    means: Means
    id: Annotated[str, Field(description="of the token or session")]
    grants: dict[str, Role]


class Tenant(Shape):
    """A tenant."""

    name: str
    retention_seconds: int | None
    sources: int
    endpoints: int
    mailboxes: int


class Tenants(Shape):
    """All tenants that you see."""

    data: list[Tenant]


class Source(Shape):
    """A source of messages; its secrets are never shown."""

    tenant: str
    name: str
    kind: str
    created_at: Time


class Sources(Shape):
    """All sources of a tenant."""

    data: list[Source]


class Status(Shape):
    """What Postgres says of the whole system, as `waxseal status` shows it."""

    at: Time
    deliveries: dict[str, int]
    deliveries_estimated: bool
    deliveries_removed: dict[str, int]
    oldest_due_seconds: float | None
    dead_letters: dict[str, int]
    on_broken_chains: int
    oldest_dead_letter_seconds: float | None
    disabled_endpoints: dict[str, str]
    mailboxes: dict[str, int]
    moves: list[dict[str, Any]]
    wal_archive: dict[str, Any] | None
    ledger: dict[str, Any] | None
    ledger_error: str | None
    claims: list[dict[str, Any]]
    dead_letters_by_reason: list[dict[str, Any]]


def _me(asked: Asked) -> Answer:
    principal = asked.call.principal
    return Answer(
        {"who": principal.who, "means": principal.means, "id": principal.id, "grants": dict(principal.grants)},
    )


def _tenants(asked: Asked) -> Answer:
    principal = asked.call.principal
    everywhere = principal.role_in(EVERYWHERE) is not None
    return Answer({"data": tenants.listed(asked.reads, None if everywhere else list(principal.grants))})


def _tenant(asked: Asked) -> Answer:
    return Answer(tenants.shown(asked.reads, str(asked.tenant)))


def _sources(asked: Asked) -> Answer:
    return Answer({"data": tenants.sources(asked.reads, str(asked.tenant))})


def _status(asked: Asked) -> Answer:
    return Answer(tenants.status(asked.reads))


OPERATIONS: Final = (
    Operation("who_am_i", "GET", "/me", "viewer", "any", _me, "Who asks, and what they may do", {200: Me}),
    Operation("status", "GET", "/status", "viewer", "all", _status, "How the whole system stands", {200: Status}),
    Operation("list_tenants", "GET", "/tenants", "viewer", "any", _tenants, "The tenants that you see", {200: Tenants}),
    Operation("show_tenant", "GET", OF_TENANT, "viewer", "tenant", _tenant, "One tenant", {200: Tenant}, NoQuery),
    Operation(
        "list_sources", "GET", f"{OF_TENANT}/sources", "viewer", "tenant", _sources, "The tenant's sources", {200: Sources}
    ),
)
