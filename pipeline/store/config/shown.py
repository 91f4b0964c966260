"""Statements that show what is configured: terms and numbers of secrets, never a secret, encrypted or not."""

from collections.abc import Sequence

from sqlalchemy import Connection, text
from sqlalchemy import RowMapping as Row

TENANTS = text("""
    SELECT tenant.name, retention, tenant.created_at,
           (SELECT count(*) FROM source WHERE tenant_id = tenant.id) AS sources,
           (SELECT count(*) FROM endpoint WHERE tenant_id = tenant.id AND state <> 'removed') AS endpoints,
           (SELECT count(*) FROM endpoint WHERE tenant_id = tenant.id AND state = 'disabled') AS disabled
    FROM tenant ORDER BY tenant.name""")

IS_TENANT = text("SELECT EXISTS (SELECT FROM tenant WHERE name = :name)")

# A mailbox is a source, too; it has pages of its own.
SOURCES = text("""
    SELECT source.name, kind, settings, cardinality(secrets) AS secrets, source.created_at
    FROM source JOIN tenant ON tenant.id = tenant_id
    WHERE tenant.name = :tenant AND NOT EXISTS (SELECT FROM mailbox WHERE mailbox.id = source.id) ORDER BY source.name""")

ENDPOINT = text("""
    SELECT endpoint.id, transport, url, settings - 'sealed' AS settings, filter, cardinality(secrets) AS secrets,
           endpoint.created_at
    FROM endpoint JOIN tenant ON tenant.id = tenant_id LEFT JOIN subscription ON endpoint_id = endpoint.id
    WHERE tenant.name = :tenant AND endpoint.name = :name AND endpoint.state <> 'removed'""")


def tenants(conn: Connection) -> Sequence[Row]:
    """Every tenant, with how much is configured for it."""
    return conn.execute(TENANTS).mappings().all()


def is_tenant(conn: Connection, name: str) -> bool:
    """Whether a tenant of this name is configured."""
    return bool(conn.execute(IS_TENANT, {"name": name}).scalar_one())


def sources(conn: Connection, tenant: str) -> Sequence[Row]:
    """The tenant's sources that are no mailboxes."""
    return conn.execute(SOURCES, {"tenant": tenant}).mappings().all()


def endpoint(conn: Connection, tenant: str, name: str) -> Row | None:
    """An endpoint's terms; None if there is no such endpoint, or it was removed."""
    return conn.execute(ENDPOINT, {"tenant": tenant, "name": name}).mappings().one_or_none()
