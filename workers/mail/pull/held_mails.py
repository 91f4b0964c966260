"""The mails of one mailbox that are held, for its session to look up while a batch is pulled."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeVar

from ops.runtime.db import Connection, Engine, transaction
from pipeline.store.mail import items as mail_items
from schemas.mailbox import Print

_Answer = TypeVar("_Answer")


class HeldMails:
    """The mails of one mailbox that are held; see `workers.mail.mailbox_session.Known`."""

    def __init__(self, engine: Engine, mailbox_id: int) -> None:
        self._engine = engine
        self._id = mailbox_id

    def keys(self, source_keys: Sequence[str]) -> Set[str]:
        """Those of `source_keys`, which the mailbox has just listed, that are held."""
        return self._ask(lambda conn: mail_items.listed(conn, self._id, source_keys)) if source_keys else set()

    def alike(self, folder: str, fresh: Mapping[str, Print]) -> Mapping[str, str]:
        """New key -> old key, for mails that are held under an old key."""
        return self._ask(lambda conn: mail_items.alike(conn, self._id, folder, fresh))

    def older(self, folder: str, source_key: str) -> bool:
        """Whether mails are held under keys of another generation."""
        return self._ask(lambda conn: mail_items.older(conn, self._id, folder, source_key))

    def _ask(self, question: Callable[[Connection], _Answer]) -> _Answer:
        with transaction(self._engine) as conn:
            return question(conn)
