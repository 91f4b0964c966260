"""Sessions kept open between two consecutive batches of a mailbox, so that the next need not log in again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.mailbox import Mailbox
from workers.mail.mailbox_session import Away, MailboxSession, Token
from workers.mail.pull.mailbox_kinds import KINDS

KEPT: Final = 32  # sessions at most
KEPT_SECONDS: Final = 20.0  # for which a session is kept for the next batch

Open = Callable[[Mailbox, Token | None], MailboxSession]


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session, with the mailbox's settings at the time when it was opened."""

    session: MailboxSession
    mailbox: Mailbox
    until: float  # monotonic seconds


def open_session(mailbox: Mailbox, token: Token | None) -> MailboxSession:
    """Log in to a mailbox of any kind. Raises a `SourceError`."""
    kind = KINDS.get(mailbox.kind)
    if kind is None:
        raise Away(f"this version does not know mailboxes of kind {mailbox.kind}: run the one that configured it")
    return kind.open(mailbox, token)


class Sessions:
    """Kept sessions, for any thread. A session has one owner at a time: a caller of `take` passes it to `keep` or closes it."""

    def __init__(self, tokens: Callable[[Mailbox], Token | None], open_: Open = open_session) -> None:
        self._tokens = tokens
        self._open = open_
        self._lock = threading.Lock()
        self._kept: dict[int, KeptSession] = {}

    def take(self, mailbox: Mailbox, *, anew: bool = False) -> tuple[MailboxSession, bool]:
        """A session, and whether it is a kept one; never with `anew`, nor if the mailbox's settings have changed.

        Raises a `SourceError`.
        """
        with self._lock:
            kept = self._kept.pop(mailbox.id, None)
        if kept is not None:
            if not anew and kept.mailbox == mailbox and kept.until > time.monotonic():
                return kept.session, True
            kept.session.close()
        return self._open(mailbox, self._tokens(mailbox)), False

    def keep(self, mailbox: Mailbox, session: MailboxSession) -> None:
        """Keep a session for the next batch, for `KEPT_SECONDS`."""
        with self._lock:
            full = len(self._kept) >= KEPT or mailbox.id in self._kept
            if not full:
                self._kept[mailbox.id] = KeptSession(session, mailbox, time.monotonic() + KEPT_SECONDS)
        if full:
            session.close()

    def sweep(self, *, everything: bool = False) -> None:
        """Close the sessions that have expired, or all."""
        now = time.monotonic()
        with self._lock:
            old = [id_ for id_, kept in self._kept.items() if everything or kept.until <= now]
            closing = [self._kept.pop(id_) for id_ in old]
        for kept in closing:
            kept.session.close()
