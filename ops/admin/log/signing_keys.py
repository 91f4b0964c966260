"""The keys that sign a tenant's log: listed as verifier keys, added and retired."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, noted
from ops.admin.views import View
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.ledger.notes import ED25519, Key, Signer, new_private
from pipeline.store.log import checkpoints, keys
from pipeline.store.log.checkpoints import OpenLog
from schemas.access import By
from schemas.ledger.log_names import log_origin


def list_keys(engine: Engine, settings: Settings, tenant: str) -> list[View]:
    """The keys of the tenant's log with their verifier keys, the oldest first."""
    with transaction(engine) as conn:
        return [key_view(key, origin_of(settings, log)) for log in [_log(conn, tenant)] for key in keys.keys(conn, log.id)]


def key_view(key: keys.LogKey, origin: str) -> View:
    """A key, with what others verify checkpoints by."""
    vkey = Key(origin, ED25519, key.public).vkey
    return {"id": key.id, "state": key.state, "created_at": key.created_at.isoformat(), "vkey": vkey}


def add_key(engine: Engine, settings: Settings, tenant: str, who: By) -> View:
    """Add a key, which signs beside those that are active from the sealer's next turn on."""
    vault = Vault(settings.fernet_keys())
    with noted(engine, Act(who, "log key new", {"tenant": tenant}), 1) as tally:
        with transaction(engine) as conn:
            log = _log(conn, tenant)
            private = new_private()
            keys.add(conn, log.id, Signer(origin_of(settings, log), private).key.public, vault.encrypt(private))
            added = keys.keys(conn, log.id)[-1]
        tally.done = 1
    return key_view(added, origin_of(settings, log))


def retire_key(engine: Engine, settings: Settings, tenant: str, key_id: int, who: By) -> View:
    """Let a key sign no more. Raises `OpsError` for the last active one: the log could not be sealed."""
    with noted(engine, Act(who, "log key retire", {"tenant": tenant, "id": key_id}), 1) as tally:
        with transaction(engine) as conn:
            log = _log(conn, tenant)
            known = keys.keys(conn, log.id)
            active = [key.id for key in known if key.state == "active"]
            if key_id not in active:
                raise OpsError(f"{tenant} has no active key {key_id}; active are: {_listed(active)}")
            if len(active) == 1:
                raise OpsError(f"key {key_id} is the only one that signs: add another first, with --new")
            keys.retire(conn, log.id, key_id)
            retired = next(key for key in keys.keys(conn, log.id) if key.id == key_id)
        tally.done = 1
    return key_view(retired, origin_of(settings, log))


def origin_of(settings: Settings, log: OpenLog) -> str:
    """The origin of the log, which is its keys' name."""
    return log_origin(settings.log_origin, log.tenant, log.incarnation)


def _log(conn: Connection, tenant: str) -> OpenLog:
    log = checkpoints.open_log(conn, tenant)
    if log is None:
        raise OpsError(f"{tenant} has no log yet: the sequencer makes it when the first entry is recorded")
    return log


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
