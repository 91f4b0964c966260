"""Acts under an Idempotency-Key: done once, and answered the same when they are asked for again.

The answer is written in the act's own transaction. So if the process dies before it is committed, nothing was done, and if it
dies after, the answer is there.
"""

import hashlib
from collections.abc import Callable
from typing import Final, cast

from sqlalchemy import Engine

from ops.errors import OpsError
from ops.runtime.db import Joined, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.store.access import idempotency_keys as store
from pipeline.store.access.idempotency_keys import Kept

KEPT: Final = 86_400.0  # seconds


class UnderWay(OpsError):
    """The act under this key has not ended yet."""


class OtherRequest(OpsError):
    """The key was used for another request."""


def once(
    engine: Engine,
    settings: Settings,
    principal: str,
    key: str,
    request: bytes,
    act: Callable[[Engine], tuple[int, bytes]],
) -> tuple[int, bytes, bool]:
    """The status and answer of `act`, or those that it had before, and whether it was done now.

    `act` gets an engine whose transactions are parts of one, which the answer is written in; when it raises, nothing is kept.
    Raises `UnderWay` and `OtherRequest`.
    """
    asked, vault = hashlib.sha256(request).digest(), Vault(settings.fernet_keys())
    with transaction(engine) as conn:
        if not store.lock(conn, principal, key):
            raise UnderWay("a request with this Idempotency-Key is being carried out: ask again in a moment")
        kept = store.find(conn, principal, key, KEPT)
        if kept is not None:
            if kept.asked != asked:
                raise OtherRequest("this Idempotency-Key was used for another request: take a new one")
            return kept.status, vault.decrypt(kept.answer), False
        status, answer = act(cast(Engine, Joined(conn)))
        store.keep(conn, principal, key, Kept(asked, status, vault.encrypt(answer)))
    return status, answer, True


def forget_old(engine: Engine) -> None:
    """Deletes answers that are not given again."""
    with transaction(engine) as conn:
        store.drop_old(conn, KEPT)
