"""Statements that change tenants, sources and endpoints."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from schemas.endpoint import Endpoint
from schemas.source import Source

# An arbitrary number that nothing else in the database locks: two concurrent changes of the configuration wait for each other.
LOCK = text("SELECT pg_advisory_xact_lock(24852988478448745)")

LIMIT_WAITS = text("SELECT set_config('lock_timeout', :milliseconds, true)")

ADD_TENANT = text("INSERT INTO tenant (name, fingerprint_key) VALUES (:name, :key)")

SET_RETENTION = text("UPDATE tenant SET retention = :retention WHERE name = :name")

PUT_SOURCE = text("""
    INSERT INTO source (tenant_id, name, kind, secrets, settings)
    SELECT id, :name, :kind, :secrets, CAST(:settings AS jsonb) FROM tenant WHERE name = :tenant
    ON CONFLICT (tenant_id, name) DO UPDATE
    SET kind = excluded.kind, secrets = excluded.secrets, settings = excluded.settings""")

DELETE_SOURCE = text("""
    DELETE FROM source USING tenant WHERE tenant.id = tenant_id AND tenant.name = :tenant AND source.name = :name""")

# The state changes only if `activate` is set: a worker may disable the endpoint while this runs.
PUT_ENDPOINT = text("""
    INSERT INTO endpoint (tenant_id, name, transport, url, secrets, settings)
    SELECT id, :name, :transport, nullif(:url, ''), :secrets, CAST(:settings AS jsonb) FROM tenant WHERE name = :tenant
    ON CONFLICT (tenant_id, name) DO UPDATE
    SET transport = excluded.transport, url = excluded.url, secrets = excluded.secrets, settings = excluded.settings,
        state = CASE WHEN :activate THEN 'active' ELSE endpoint.state END,
        reason = CASE WHEN :activate THEN NULL ELSE endpoint.reason END
    RETURNING id""")

PUT_SUBSCRIPTION = text("""
    INSERT INTO subscription (endpoint_id, filter) VALUES (:id, CAST(:filter AS jsonb))
    ON CONFLICT (endpoint_id) DO UPDATE SET filter = excluded.filter""")

# Never deleted: past deliveries refer to it, and planned ones must still be settled.
REMOVE_ENDPOINT = text("UPDATE endpoint SET state = 'removed', reason = NULL WHERE id = :id")

# Tenants whose name is in the ledger, or that have a source through which it could get there.
TENANTS_IN_USE = text("""
    SELECT name FROM tenant WHERE EXISTS (SELECT FROM chain WHERE chain.tenant = tenant.name)
    OR EXISTS (SELECT FROM source WHERE tenant_id = tenant.id)""")

# Only for tenants that were never in use, whose endpoints have no deliveries.
DELETE_SUBSCRIPTIONS = text("""
    DELETE FROM subscription USING endpoint, tenant
    WHERE endpoint_id = endpoint.id AND tenant_id = tenant.id AND tenant.name = :name""")
DELETE_HEALTH = text("""
    DELETE FROM endpoint_health USING endpoint, tenant
    WHERE endpoint_id = endpoint.id AND tenant_id = tenant.id AND tenant.name = :name""")
DELETE_ENDPOINTS = text("DELETE FROM endpoint USING tenant WHERE tenant_id = tenant.id AND tenant.name = :name")
DELETE_TENANT = text("DELETE FROM tenant WHERE name = :name")


def limit_waits(conn: Connection, seconds: float) -> None:
    """Makes every wait for a lock in this transaction end with an error after `seconds`."""
    conn.execute(LIMIT_WAITS, {"milliseconds": str(int(seconds * 1000))})


def lock(conn: Connection) -> None:
    """Locks the configuration against other changes until the transaction ends; waits for the lock."""
    conn.execute(LOCK)


def add_tenant(conn: Connection, name: str, key: bytes) -> None:
    """Adds a tenant. `key`, encrypted, is the key of its fingerprints and must never change."""
    conn.execute(ADD_TENANT, {"name": name, "key": key})


def set_retention(conn: Connection, tenant: str, seconds: int | None) -> None:
    """Sets for how long the tenant keeps content; None: for ever."""
    conn.execute(SET_RETENTION, {"name": tenant, "retention": seconds})


def put_source(conn: Connection, source: Source, secrets: Sequence[bytes], settings: Mapping[str, Any]) -> None:
    """Creates the source or replaces it, with `secrets` encrypted and `settings` as `catalog.load` reads them."""
    row = {"tenant": source.tenant, "name": source.name, "kind": source.kind, "secrets": list(secrets)}
    conn.execute(PUT_SOURCE, {**row, "settings": json.dumps(settings)})


def delete_source(conn: Connection, tenant: str, name: str) -> None:
    """Deletes a source; messages for it are buried as `unknown_source` from now on."""
    conn.execute(DELETE_SOURCE, {"tenant": tenant, "name": name})


def put_endpoint(
    conn: Connection, endpoint: Endpoint, secrets: Sequence[bytes], settings: Mapping[str, Any], *, activate: bool
) -> int:
    """Creates the endpoint and its subscription, or replaces them; returns its id. `activate` enables a disabled one.

    `secrets` are encrypted, and `settings` are the result of `endpoint_row.settings_of`.
    """
    row: dict[str, Any] = {"tenant": endpoint.tenant, "name": endpoint.name, "url": endpoint.url}
    row |= {"transport": endpoint.transport, "secrets": list(secrets), "settings": json.dumps(settings), "activate": activate}
    id_ = int(conn.execute(PUT_ENDPOINT, row).scalar_one())
    filter_ = None if endpoint.filter is None else json.dumps(endpoint.filter)
    conn.execute(PUT_SUBSCRIPTION, {"id": id_, "filter": filter_})
    return id_


def remove_endpoint(conn: Connection, id_: int) -> None:
    """Removes the endpoint: nothing more is planned for it. `inactive_endpoints.give_up` ends its undelivered deliveries."""
    conn.execute(REMOVE_ENDPOINT, {"id": id_})


def tenants_in_use(conn: Connection) -> set[str]:
    """The tenants that must not be deleted: they have entries, or a source through which one may be under way."""
    return set(conn.execute(TENANTS_IN_USE).scalars())


def delete_tenant(conn: Connection, name: str) -> None:
    """Deletes a tenant, which must not be in use, with its endpoints and its fingerprint key."""
    for statement in (DELETE_SUBSCRIPTIONS, DELETE_HEALTH, DELETE_ENDPOINTS, DELETE_TENANT):
        conn.execute(statement, {"name": name})
