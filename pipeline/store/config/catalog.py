"""Statements that read the catalog: tenants, sources and endpoints."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, text

from pipeline.store.config.endpoint_row import Decrypt, endpoint_of
from pipeline.store.round_trip import Query
from schemas.catalog import Catalog
from schemas.source import DEFAULT_MAX_BODY, DEFAULT_TOLERANCE, Source

# One row, read with every batch, so that a change takes effect with the next batch.
VERSION = text("SELECT version FROM catalog")

TENANTS = text("SELECT name, fingerprint_key, before_origins, retention FROM tenant ORDER BY id")

TENANT_KEY = text("SELECT fingerprint_key FROM tenant WHERE name = :tenant")

SOURCES = text("""
    SELECT tenant.name AS tenant, source.name, kind, secrets, settings
    FROM source JOIN tenant ON tenant.id = tenant_id ORDER BY source.id""")

# What comes for them is kept for the cell that they go to.
MOVING = text("SELECT tenant FROM tenant_move WHERE state IN ('moving', 'moved', 'finishing')")

# Waits while a move is taken back: what was kept is recorded then, before what comes next. Another statement reads the states,
# which sees what the mover has committed.
LOCK_KEPT = text("""
    SELECT set_config('idle_in_transaction_session_timeout', '60s', true),
           pg_advisory_xact_lock_shared(hashtextextended('waxseal kept ' || tenant, 0))
    FROM unnest(CAST(:tenants AS text[])) AS tenant ORDER BY tenant""")

# Removed endpoints too: deliveries that were planned for them must still be settled.
ENDPOINTS = text("""
    SELECT endpoint.id, tenant.name AS tenant, endpoint.name, transport, url, secrets, settings, state, filter
    FROM endpoint JOIN tenant ON tenant.id = tenant_id LEFT JOIN subscription ON endpoint_id = endpoint.id
    ORDER BY endpoint.id""")


def version(conn: Connection) -> int:
    """The catalog's version, which every change raises."""
    return int(conn.execute(VERSION).scalar_one())


def version_query() -> Query:
    """The query of `version`, for one round trip with others."""
    return VERSION, {}


def tenant_key(conn: Connection, tenant: str, decrypt: Decrypt) -> bytes:
    """The key of the tenant's fingerprints. The tenant must exist."""
    return decrypt(conn.execute(TENANT_KEY, {"tenant": tenant}).scalar_one())


def load(conn: Connection, decrypt: Decrypt) -> Catalog:
    """The whole catalog, with its secrets decrypted.

    The version is read first: after a concurrent change it is too low, so the next comparison reloads the catalog.
    """
    current = version(conn)
    tenants = conn.execute(TENANTS).all()
    sources = [_source(row._mapping, decrypt) for row in conn.execute(SOURCES)]  # noqa: SLF001
    endpoints = [endpoint_of(row._mapping, decrypt) for row in conn.execute(ENDPOINTS)]  # noqa: SLF001
    return Catalog(
        current,
        {row.name: decrypt(row.fingerprint_key) for row in tenants},
        {(source.tenant, source.name): source for source in sources},
        {each.id: each for each in endpoints},
        {row.name for row in tenants if row.before_origins},
        {row.name: row.retention for row in tenants if row.retention is not None},
        frozenset(conn.execute(MOVING).scalars()),
    )


def lock_kept(conn: Connection, tenants: Collection[str]) -> set[str]:
    """Those of the tenants that leave for another cell; no move of theirs is taken back before the transaction ends."""
    conn.execute(LOCK_KEPT, {"tenants": sorted(tenants)})
    return set(conn.execute(MOVING).scalars()) & set(tenants)


def _texts(encrypted: Sequence[bytes], decrypt: Decrypt) -> tuple[str, ...]:
    return tuple(decrypt(each).decode() for each in encrypted)


def _source(row: Any, decrypt: Decrypt) -> Source:
    settings = row["settings"]
    return Source(
        tenant=row["tenant"],
        name=row["name"],
        kind=row["kind"],
        secrets=_texts(row["secrets"], decrypt),
        id=settings.get("id"),
        type=settings.get("type"),
        subject=settings.get("subject"),
        time=settings.get("time"),
        extensions=settings.get("extensions", {}),
        max_body=settings.get("max_body", DEFAULT_MAX_BODY),
        tolerance=settings.get("tolerance", DEFAULT_TOLERANCE),
        rate_limit=settings.get("rate_limit"),
        options=settings.get("options", {}),
        users=tuple(settings.get("users", ())),
        retention=settings.get("retention"),
    )
