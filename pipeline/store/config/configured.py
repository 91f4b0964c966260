"""Statements that show what is configured, without secrets; and one that tells whether any of it changed."""

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

TENANTS = text("""
    SELECT name, retention AS retention_seconds,
           (SELECT count(*) FROM source WHERE tenant_id = tenant.id AND NOT EXISTS (
              SELECT FROM mailbox WHERE mailbox.id = source.id)) AS sources,
           (SELECT count(*) FROM endpoint WHERE tenant_id = tenant.id AND state <> 'removed') AS endpoints,
           (SELECT count(*) FROM source JOIN mailbox USING (id) WHERE tenant_id = tenant.id) AS mailboxes
    FROM tenant WHERE CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[])) ORDER BY name""")

SOURCES = text("""
    SELECT tenant.name AS tenant, source.name, kind, source.created_at FROM source JOIN tenant ON tenant.id = tenant_id
    WHERE tenant.name = :tenant AND NOT EXISTS (SELECT FROM mailbox WHERE mailbox.id = source.id) ORDER BY source.name""")

ENDPOINTS = text("""
    SELECT tenant.name AS tenant, endpoint.name, transport, url, filter FROM endpoint JOIN tenant ON tenant.id = tenant_id
    LEFT JOIN subscription ON endpoint_id = endpoint.id
    WHERE endpoint.state <> 'removed' ORDER BY tenant.name, endpoint.name""")

ALL_SOURCES = text("""
    SELECT tenant.name AS tenant, source.name, kind FROM source JOIN tenant ON tenant.id = tenant_id
    WHERE NOT EXISTS (SELECT FROM mailbox WHERE mailbox.id = source.id) ORDER BY tenant.name, source.name""")

MAILBOXES = text("""
    SELECT tenant.name AS tenant, source.name, kind, mailbox.settings ->> 'username' AS username
    FROM mailbox JOIN source USING (id) JOIN tenant ON tenant.id = tenant_id ORDER BY tenant.name, source.name""")

# Encrypted secrets change whenever they are written, and they are written only when something changes. What processes note in
# these rows (states, tokens, leases) is no part of what is configured.
CONTENT = text("""
    SELECT concat_ws(' ', 'tenant', name, retention) AS line FROM tenant
    UNION ALL
    SELECT concat_ws(' ', 'source', tenant_id, name, kind, settings, secrets) FROM source
    UNION ALL
    SELECT concat_ws(' ', 'endpoint', tenant_id, name, transport, url, settings, secrets, filter)
    FROM endpoint LEFT JOIN subscription ON endpoint_id = endpoint.id WHERE state <> 'removed'
    UNION ALL
    SELECT concat_ws(' ', 'mailbox', id, settings, credentials) FROM mailbox
    ORDER BY line""")


def tenants(conn: Connection, names: Sequence[str] | None) -> Sequence[Row]:
    """The tenants of these names, or all, with the numbers of what is configured of them."""
    return conn.execute(TENANTS, {"names": None if names is None else list(names)}).mappings().all()


def sources(conn: Connection, tenant: str) -> Sequence[Row]:
    """The tenant's sources, without mailboxes."""
    return conn.execute(SOURCES, {"tenant": tenant}).mappings().all()


def parts(conn: Connection) -> dict[str, Sequence[Row]]:
    """All that is configured, by its section of a configuration file."""
    found = {"tenants": conn.execute(TENANTS, {"names": None}).mappings().all()}
    for name, statement in (("sources", ALL_SOURCES), ("endpoints", ENDPOINTS), ("mailboxes", MAILBOXES)):
        found[name] = conn.execute(statement).mappings().all()
    return found


def digest(conn: Connection) -> str:
    """A hash of all that is configured, secrets included. Needs the rights of waxseal_console."""
    found = hashlib.sha256()
    for line in conn.execute(CONTENT).scalars():
        found.update(line.encode() + b"\0")
    return found.hexdigest()
