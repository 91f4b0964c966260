"""Rotates the secret that an endpoint's requests are signed with: a new one beside the old one, then without it."""

import base64
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Named
from ops.admin.read_session import known_endpoint, known_tenant
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.runtime.vault import Vault
from pipeline.store.admin import audit
from pipeline.store.config import catalog, configure, endpoint_secrets
from schemas.config.transports import TRANSPORTS
from schemas.endpoint import Endpoint

_BYTES: Final = 32


def rotate(engine: Engine, vault: Vault, named: Named) -> str:
    """Gives the endpoint a new secret, and returns it: it cannot be shown again. Requests are signed with the last one, too.

    Raises `OpsError` if there is no such endpoint, or its requests are not signed.
    """
    secret = "whsec_" + base64.b64encode(os.urandom(_BYTES)).decode()
    with transaction(engine) as conn:
        id_, before = _locked(conn, named)
        endpoint_secrets.put(conn, id_, [vault.encrypt(secret.encode()), *before[:1]])
        _note(conn, named, "endpoint rotate")
    return secret


def retire(engine: Engine, named: Named) -> bool:
    """Has requests signed with the newest secret alone; returns whether there was another one."""
    with transaction(engine) as conn:
        id_, before = _locked(conn, named)
        if len(before) > 1:
            endpoint_secrets.put(conn, id_, before[:1])
            _note(conn, named, "endpoint retire-secret")
    return len(before) > 1


def in_the_clear(engine: Engine, vault: Vault, named: Named) -> Endpoint:
    """The endpoint as a process that sends to it knows it, for a test that is recorded with this. Raises `OpsError`."""
    with transaction(engine) as conn:
        id_ = known_endpoint(conn, known_tenant(conn, named.tenant), named.name)
        found = catalog.load(conn, vault.decrypt).endpoints[id_]
        _note(conn, named, "endpoint test")
    return found


def _locked(conn: Connection, named: Named) -> tuple[int, Sequence[bytes]]:
    """The endpoint and its secrets. The configuration's own lock comes first, as in `apply`, which reads before it writes."""
    configure.lock(conn)
    id_ = known_endpoint(conn, known_tenant(conn, named.tenant), named.name)
    found = endpoint_secrets.secrets(conn, id_)
    if found is None:
        raise OpsError(f"{named.tenant}/{named.name} was removed: configure it again with `waxseal apply`")
    transport, secrets = found
    if not TRANSPORTS[transport].signed:
        raise OpsError(f"{named.tenant}/{named.name}: deliveries over {transport} are not signed")
    return id_, secrets


def _note(conn: Connection, named: Named, act: str) -> None:
    about = {"tenant": named.tenant, "endpoint": named.name}
    audit.record(conn, named.who, act, about, 1, datetime.now(UTC), "done")
