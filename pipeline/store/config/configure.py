"""Statements that change what is configured."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from schemas.endpoint import Endpoint
from schemas.source import Source

# Any number that nothing else on the database locks: two who configure at once wait for each other.
LOCK = text("SELECT pg_advisory_xact_lock(24852988478448745)")

ADD_TENANT = text("INSERT INTO tenant (name, fingerprint_key) VALUES (:name, :key)")

PUT_SOURCE = text("""
    INSERT INTO source (tenant_id, name, kind, secrets, settings)
    SELECT id, :name, :kind, :secrets, CAST(:settings AS jsonb) FROM tenant WHERE name = :tenant
    ON CONFLICT (tenant_id, name) DO UPDATE
    SET kind = excluded.kind, secrets = excluded.secrets, settings = excluded.settings""")

DELETE_SOURCE = text("""
    DELETE FROM source USING tenant WHERE tenant.id = tenant_id AND tenant.name = :tenant AND source.name = :name""")

# The state only moves when it is asked to: a worker may disable the endpoint while this runs.
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

# Never deleted: deliveries of the past name it, and those that are planned still have to be settled.
REMOVE_ENDPOINT = text("UPDATE endpoint SET state = 'removed', reason = NULL WHERE id = :id")

# Whose name stands in the ledger, or who still has a source through which it could come to stand there.
TENANTS_IN_USE = text("""
    SELECT name FROM tenant WHERE EXISTS (SELECT FROM chain WHERE chain.tenant = tenant.name)
    OR EXISTS (SELECT FROM source WHERE tenant_id = tenant.id)""")

# Only of tenants that were never in use: nothing else names their endpoints.
DELETE_SUBSCRIPTIONS = text("""
    DELETE FROM subscription USING endpoint, tenant
    WHERE endpoint_id = endpoint.id AND tenant_id = tenant.id AND tenant.name = :name""")
DELETE_ENDPOINTS = text("DELETE FROM endpoint USING tenant WHERE tenant_id = tenant.id AND tenant.name = :name")
DELETE_TENANT = text("DELETE FROM tenant WHERE name = :name")


def lock(conn: Connection) -> None:
    """Waits until nobody else configures; held until the transaction ends."""
    conn.execute(LOCK)


def add_tenant(conn: Connection, name: str, key: bytes) -> None:
    """Adds a tenant. `key`, encrypted, makes its fingerprints and may never change."""
    conn.execute(ADD_TENANT, {"name": name, "key": key})


def put_source(conn: Connection, source: Source, secrets: Sequence[bytes], settings: Mapping[str, Any]) -> None:
    """Makes the source what `source` says, with `secrets` encrypted and `settings` as `catalog.load` reads them."""
    row = {"tenant": source.tenant, "name": source.name, "kind": source.kind, "secrets": list(secrets)}
    conn.execute(PUT_SOURCE, {**row, "settings": json.dumps(settings)})


def delete_source(conn: Connection, tenant: str, name: str) -> None:
    """Forgets a source; what comes for it from now on is buried as `unknown_source`."""
    conn.execute(DELETE_SOURCE, {"tenant": tenant, "name": name})


def put_endpoint(
    conn: Connection, endpoint: Endpoint, secrets: Sequence[bytes], settings: Mapping[str, Any], *, activate: bool
) -> int:
    """Makes the endpoint and its subscription what `endpoint` says; returns its id. `activate` ends its being disabled.

    `secrets` are encrypted, and `settings` what `endpoints.settings_of` gives.
    """
    row: dict[str, Any] = {"tenant": endpoint.tenant, "name": endpoint.name, "url": endpoint.url}
    row |= {"transport": endpoint.transport, "secrets": list(secrets), "settings": json.dumps(settings), "activate": activate}
    id_ = int(conn.execute(PUT_ENDPOINT, row).scalar_one())
    filter_ = None if endpoint.filter is None else json.dumps(endpoint.filter)
    conn.execute(PUT_SUBSCRIPTION, {"id": id_, "filter": filter_})
    return id_


def remove_endpoint(conn: Connection, id_: int) -> None:
    """Plans nothing more for the endpoint; what it is owed, `aside.give_up` ends."""
    conn.execute(REMOVE_ENDPOINT, {"id": id_})


def tenants_in_use(conn: Connection) -> set[str]:
    """The tenants that must not be deleted: they have entries, or a source through which one may just be on its way."""
    return set(conn.execute(TENANTS_IN_USE).scalars())


def delete_tenant(conn: Connection, name: str) -> None:
    """Deletes a tenant that is not in use, with its endpoints and its fingerprint key."""
    for statement in (DELETE_SUBSCRIPTIONS, DELETE_ENDPOINTS, DELETE_TENANT):
        conn.execute(statement, {"name": name})
