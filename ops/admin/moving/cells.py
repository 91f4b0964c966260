"""A cell: a whole system, seen from outside by whoever moves a tenant into it, or out of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from ops.admin.read_session import open_engine
from ops.errors import OpsError
from ops.runtime.blobs import Blobs, open_blobs
from ops.runtime.db import Engine, passes, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings, require
from ops.system.stack_file import settings_elsewhere
from pipeline.store.admin import queries
from pipeline.store.moving import moves

NEEDED = ("database_url", "amqp_url", "keys", "log_origin")


@dataclass(frozen=True, slots=True)
class Cell:
    """Its settings, and what they lead to; `name` tells operators which it is."""

    name: str
    settings: Settings
    engine: Engine
    vault: Vault
    blobs: Blobs


@dataclass(frozen=True, slots=True)
class Route:
    """A tenant, the cell that it leaves and the one that it comes to."""

    tenant: str
    source: Cell
    target: Cell

    def reseal(self, secret: bytes) -> bytes:
        """What the source's key encrypted, encrypted by the target's. Raises `OpsError` for another key's."""
        return self.target.vault.encrypt(self.source.vault.decrypt(secret))


@contextmanager
def alone(route: Route) -> Iterator[None]:
    """Let no other mover work on the tenant until the block ends. Raises `OpsError` if one does."""
    with transaction(route.source.engine) as guard:
        queries.be_patient(guard)
        if not moves.alone(guard, route.tenant):
            raise OpsError(f"another command moves {route.tenant} just now")
        yield


@contextmanager
def opened(tenant: str, here: Settings, there: Path) -> Iterator[Route]:
    """The route of a tenant from the system of these settings to that of a folder, or of a file of variables.

    Raises `OpsError` when one of the two databases goes away within the block: whatever was done there can be done again.
    """
    elsewhere = settings_elsewhere(there)
    require(here, *NEEDED)
    require(elsewhere, *NEEDED)
    with ExitStack() as stack:
        route = Route(tenant, _cell(here, stack), _cell(elsewhere, stack))
        try:
            yield route
        except Exception as error:
            if not passes(error):
                raise
            names, said = f"{route.source.name} or {route.target.name}", str(error).strip().partition("\n")[0]
            raise OpsError(f"the database of {names} went away ({said}): run the same command again, it goes on") from error


def _cell(settings: Settings, stack: ExitStack) -> Cell:
    engine = stack.enter_context(open_engine(settings, pool_size=4))
    return Cell(_name(settings), settings, engine, Vault(settings.fernet_keys()), open_blobs(settings))


def _name(settings: Settings) -> str:
    """Where its database is, without user and password."""
    url = make_url(settings.direct_url)
    hosts = url.query.get("host") or url.host or "localhost"
    place = hosts if isinstance(hosts, str) else ",".join(hosts)
    return f"{place}{f':{url.port}' if url.port else ''}/{url.database}"
