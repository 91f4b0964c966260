"""What is configured, for operators: tenants, sources, and an endpoint's terms. A secret is only counted."""

from typing import Any, Final

from sqlalchemy import Engine

from ops.admin.read_session import known_tenant, snapshot
from ops.admin.views import View, rfc3339
from ops.errors import OpsError
from ops.runtime.redact import redact_text
from pipeline.store.admin import queries
from pipeline.store.config import catalog, shown
from schemas.endpoint import DEFAULT_MAX_IN_FLIGHT, DEFAULT_RETRY, DEFAULT_TIMEOUT
from schemas.source import DEFAULT_MAX_BODY, DEFAULT_TOLERANCE

_TARGETS: Final = ("amqp", "smtp")


def tenants(engine: Engine) -> list[View]:
    """Every tenant, with how much is configured for it."""
    with snapshot(engine) as conn:
        rows = shown.tenants(conn)
    return [{**row, "created_at": rfc3339(row["created_at"])} for row in rows]


def is_tenant(engine: Engine, name: str) -> bool:
    """Whether there is such a tenant, configured or in the ledger."""
    with snapshot(engine) as conn:
        return shown.is_tenant(conn, name) or queries.is_recorded(conn, name)


def version(engine: Engine) -> int:
    """A number that moves with every change of the configuration."""
    with snapshot(engine) as conn:
        return catalog.version(conn)


def sources(engine: Engine, tenant: str) -> list[View]:
    """The tenant's sources that are no mailboxes. Raises `OpsError` for a tenant that does not exist."""
    with snapshot(engine) as conn:
        rows = shown.sources(conn, known_tenant(conn, tenant))
    return [_source(row) for row in rows]


def endpoint(engine: Engine, tenant: str, name: str) -> View:
    """An endpoint's terms. Raises `OpsError` if the tenant has no such endpoint."""
    with snapshot(engine) as conn:
        row = shown.endpoint(conn, known_tenant(conn, tenant), name)
    if row is None:
        raise OpsError(f"tenant {tenant} has no endpoint {name!r}")
    settings = row["settings"]
    retry = list(settings.get("retry", DEFAULT_RETRY))
    return {
        "transport": row["transport"],
        "url": None if row["url"] is None else redact_text(row["url"]),
        "target": next((settings[each] for each in _TARGETS if each in settings), None),
        "filter": row["filter"],
        "retry": retry,
        "tries": len(retry) + 1,
        "gives_up_after": sum(retry),
        "timeout": settings.get("timeout", DEFAULT_TIMEOUT),
        "max_in_flight": settings.get("max_in_flight", DEFAULT_MAX_IN_FLIGHT),
        "rate_limit": settings.get("rate_limit"),
        "ordered": settings.get("ordered", False),
        "max_age": settings.get("max_age"),
        "body": settings.get("body", "raw"),
        "secrets": row["secrets"],
        "created_at": rfc3339(row["created_at"]),
    }


def _source(row: Any) -> View:
    settings = row["settings"]
    rules = {name: settings[name] for name in ("id", "type", "subject", "time") if name in settings}
    return {
        "name": row["name"],
        "kind": row["kind"],
        "secrets": row["secrets"],
        "rules": rules | settings.get("extensions", {}),
        "max_body": settings.get("max_body", DEFAULT_MAX_BODY),
        "tolerance": settings.get("tolerance", DEFAULT_TOLERANCE),
        "rate_limit": settings.get("rate_limit"),
        "users": settings.get("users", []),
        "retention": settings.get("retention"),
        "created_at": rfc3339(row["created_at"]),
    }
