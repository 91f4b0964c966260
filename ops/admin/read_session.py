"""Reads the database for operators: read-only snapshots, and errors that say what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ProgrammingError

from ops.errors import OpsError, Unknown, UnknownTenant
from ops.runtime.db import make_engine, sqlstate, transaction
from ops.runtime.schema_check import check_engine
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.store.admin import queries
from pipeline.store.dead_letters import dead_letter_list
from pipeline.store.ledger import scan as ledger_scan
from pipeline.store.search import places
from schemas.dead_letter import DeadLetterFilter

_PATIENCE: Final = 3600.0  # seconds for one statement: the first rows of a scan in order may need a sort
NO_TABLE, DENIED = "42P01", "42501"  # SQLSTATEs


@contextmanager
def open_engine(settings: Settings, pool_size: int = 1) -> Iterator[Engine]:
    """A pool of one connection, or more, closed when the block ends. Raises `OpsError` for a schema of another version."""
    engine = make_engine(settings.direct_url, pool_size=pool_size, statement_timeout=_PATIENCE)
    try:
        with explained():
            check_engine(engine)
            yield engine
    finally:
        engine.dispose()


@contextmanager
def explained() -> Iterator[None]:
    """Turns Postgres's errors about a missing schema or missing rights into an `OpsError` that says what to do."""
    try:
        yield
    except ProgrammingError as error:
        raise OpsError(_advice(error)) from error


@contextmanager
def snapshot(engine: Engine, shared: str | None = None) -> Iterator[Connection]:
    """A read-only connection that sees the database as it is now, or as `shared` names it, until the block ends."""
    with transaction(engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)) as conn:
        if shared is not None:
            ledger_scan.import_snapshot(conn, shared)
        queries.be_patient(conn)
        yield conn


def tenant_keys(conn: Connection, settings: Settings) -> Mapping[str, bytes] | None:
    """The tenants' keys by name; None if no key is set to decrypt them. Raises `OpsError` for a wrong key."""
    keys = settings.fernet_keys()
    if not keys:
        return None
    vault = Vault(keys)
    return {name: vault.decrypt(key) for name, key in queries.tenants(conn).items()}


def known_tenant(conn: Connection, name: str) -> str:
    """The tenant's name. Raises `OpsError`, which lists the known names, if it is neither configured nor recorded."""
    tenants = queries.tenants(conn)
    if name in tenants or queries.is_recorded(conn, name):
        return name
    raise UnknownTenant(f"there is no tenant {name!r}; {_list(sorted(tenants))}")


def chain_of(conn: Connection, tenant: str, subject: str, key: bytes | None, *, scan: bool) -> UUID | None:
    """The chain of a subject, whose chain key is `key`, if known. None when it has no entries.

    A chain of a key that the tenant does not have any more is found in the heads of all its chains, or without `scan` by the
    console's index of subjects, if that has it.
    """
    found = queries.chain_by_key(conn, key)
    if found is not None:
        return found
    return queries.chain_by_words(conn, tenant, subject) if scan else places.chain_of(conn, tenant, subject)


def known_endpoint(conn: Connection, tenant: str, name: str) -> int:
    """The endpoint's id. Raises `OpsError`, which lists the known names, if the tenant has no such endpoint."""
    endpoints = queries.endpoints(conn, tenant)
    if name in endpoints:
        return endpoints[name]
    raise Unknown(f"tenant {tenant} has no endpoint {name!r}; {_list(sorted(endpoints))}")


def check_chosen(conn: Connection, wanted: DeadLetterFilter) -> None:
    """Raises `OpsError` if the filter names a tenant or endpoint that neither exists nor has dead letters."""
    if wanted.tenant is not None and not dead_letter_list.are_there(conn, wanted.tenant):
        known_tenant(conn, wanted.tenant)
    if wanted.endpoint is None:
        return
    of_tenant = wanted.tenant is not None
    names = list(queries.endpoints(conn, str(wanted.tenant))) if of_tenant else queries.endpoint_names(conn)
    if wanted.endpoint in names or dead_letter_list.are_there(conn, wanted.tenant, wanted.endpoint):
        return
    if wanted.tenant is not None:
        known_endpoint(conn, wanted.tenant, wanted.endpoint)
    raise Unknown(f"no tenant has an endpoint {wanted.endpoint!r}; {_list(names)}")


def _list(names: list[str]) -> str:
    return (
        f"there are: {', '.join(names[:50])}" if names else "there is none yet: describe it in a file and `waxseal apply FILE`"
    )


def _advice(error: ProgrammingError) -> str:
    if sqlstate(error) == NO_TABLE:
        return "the database does not have Waxseal's schema: run `waxseal migrate`"
    if sqlstate(error) == DENIED:
        return f"this login may not do that ({error.orig}): use the database's owner"
    return f"the database refuses: {error.orig}"
