"""Tenants and their sources for operators, and what the database says of the whole system."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine

from ops.admin.read_session import known_tenant, snapshot
from ops.admin.status.facts import facts
from ops.admin.views import View, rfc3339
from ops.errors import Unknown
from pipeline.store.config import configured


def listed(engine: Engine, names: Sequence[str] | None) -> list[View]:
    """The tenants that are configured, of these names or all."""
    with snapshot(engine) as conn:
        return [dict(row) for row in configured.tenants(conn, names)]


def shown(engine: Engine, name: str) -> View:
    """One tenant. Raises `Unknown`."""
    for found in listed(engine, [name]):
        return found
    raise Unknown(f"there is no tenant {name!r}")


def sources(engine: Engine, tenant: str) -> list[View]:
    """The tenant's sources, without mailboxes; never a secret. Raises `Unknown` for a tenant that does not exist."""
    with snapshot(engine) as conn:
        rows = configured.sources(conn, known_tenant(conn, tenant))
    return [{**row, "created_at": rfc3339(row["created_at"])} for row in rows]


def status(engine: Engine) -> View:
    """What `waxseal status` shows of what the database says."""
    with snapshot(engine) as conn:
        found = facts(conn)
    return {"at": rfc3339(datetime.now(UTC)), **found.plain, "dead_letters_by_reason": list(found.reasons)}
