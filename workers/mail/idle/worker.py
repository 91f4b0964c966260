"""The mail-idle process: listens to IMAP mailboxes (RFC 2177), and makes them due as soon as mail arrives.

A connection covers one folder: a mailbox has one for each of its first few folders, and the others wait for the next poll. One
thread waits for all connections at once, and a pool runs the slow steps: logging in, renewing an IDLE. The process fetches no
mail. Mail that it misses, also while it is down, is read at the next poll: a lost notification costs minutes, never a mail.
"""

import random
import selectors
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.runtime import open_files
from ops.runtime.db import Engine, passes, transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.telemetry import table
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailbox_overview, mailboxes
from schemas.mailbox import Mailbox
from workers.mail.idle.folder_choice import Choice, Key
from workers.mail.imap.connection import Denied, ImapConnection, connect
from workers.mail.mailbox_session import CONNECT_SECONDS, NoFolder, SourceError, Throttled, Token
from workers.mail.oauth.tokens import Tokens
from workers.process import Process

RENEW: Final = 25 * 60.0  # seconds for one IDLE: servers hang up after 30 minutes, some a minute before
SURVEY: Final = 2.0  # seconds between two reads of the list of mailboxes
TURN: Final = 0.5  # seconds that one `turn` waits for input
ANSWER: Final = 10.0  # seconds for a server to answer
AGAIN: Final = (30.0, 900.0)  # seconds until a failed listener is tried again: the first time, and at most
THREADS: Final = 8
SPARE_FILES: Final = 100  # open files other than connections

_log = structlog.get_logger()


@dataclass
class FolderListener:
    """One chosen folder, connected or not. Used by one thread at a time: a pool thread while `busy`, else the loop's."""

    id: int  # of the mailbox
    folder: str
    digest: str
    connection: ImapConnection | None = None
    busy: Future[None] | None = None
    renew_at: float = 0.0  # monotonic: when to renew the IDLE, or to connect
    failures: int = 0
    unsupported: bool = False  # the server has no IDLE
    lacking: bool = False  # the folder cannot be opened: another one may take its place
    crowded: bool = False  # the server refused a connection as too many
    notified: bool = False  # mail may have arrived


class Idler:
    """Listens from construction to `close`; one thread calls `turn` in a loop."""

    def __init__(
        self, engine: Engine, vault: Vault, tokens: Callable[[Mailbox], Token | None], choice: Choice | None = None
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._tokens = tokens
        self._choice = choice or Choice()
        self._listeners: dict[Key, FolderListener] = {}
        self._selector = selectors.DefaultSelector()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="idle")
        self._surveyed = float("-inf")

    def turn(self, seconds: float = TURN) -> None:
        """Wait at most `seconds` for new mail, and make its mailboxes due. Raises what SQLAlchemy raises."""
        if time.monotonic() - self._surveyed >= SURVEY:
            self._survey()
        for listener in list(self._listeners.values()):
            self._settle(listener)
        self._make_due()
        table.IDLE_CONNECTIONS.set(len(self._selector.get_map()))
        for key, _ in self._selector.select(seconds) if self._selector.get_map() else ():
            self._begin(key.data, self._renewed)
        if not self._selector.get_map():
            time.sleep(seconds)

    def close(self) -> None:
        """Close all connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for listener in self._listeners.values():
            self._disconnect(listener)
        self._selector.close()

    def _survey(self) -> None:
        """Update the listeners: those of mailboxes that are gone or reconfigured end."""
        with transaction(self._engine) as conn:
            found = mailbox_overview.listened_to(conn)
        active = {each.id for each in found}
        for id_, count in self._connections().items():
            if id_ not in active and count > 1:  # it may be failing because of too many connections
                self._choice.fewer(id_, count // 2)
        wanted = self._choice.of(found, {key for key, listener in self._listeners.items() if listener.lacking})
        for key, listener in list(self._listeners.items()):
            if wanted.get(key) != listener.digest and listener.busy is None:
                self._disconnect(listener)
                del self._listeners[key]
        for (id_, folder), digest in wanted.items():
            self._listeners.setdefault((id_, folder), FolderListener(id_, folder, digest))
        self._surveyed = time.monotonic()

    def _connections(self) -> Mapping[int, int]:
        """The number of connections by mailbox."""
        return Counter(each.id for each in self._listeners.values() if each.connection is not None)

    def _settle(self, listener: FolderListener) -> None:
        """Take a listener back from the pool if it is done, and give it to the pool if it is due."""
        if listener.busy is not None:
            if not listener.busy.done():
                return
            listener.busy = None
            if listener.crowded:  # one less, to leave a connection for the puller
                listener.crowded = False
                self._choice.fewer(listener.id, self._connections().get(listener.id, 0) - 1)
            if listener.connection is not None:
                self._selector.register(listener.connection, selectors.EVENT_READ, listener)
        if not listener.unsupported and time.monotonic() >= listener.renew_at:
            self._begin(listener, self._connected if listener.connection is None else self._renewed)

    def _begin(self, listener: FolderListener, work: Callable[[FolderListener], None]) -> None:
        if listener.busy is None:
            if listener.connection is not None:
                self._selector.unregister(listener.connection)
            listener.busy = self._pool.submit(self._guarded, listener, work)

    def _make_due(self) -> None:
        """Make the mailboxes due whose mail arrived in this turn, in one transaction."""
        notified = [listener for listener in self._listeners.values() if listener.notified]
        if notified:
            with transaction(self._engine) as conn:
                mail_leases.make_due(conn, sorted({listener.id for listener in notified}), datetime.now(UTC))
            for listener in notified:
                listener.notified = False

    def _disconnect(self, listener: FolderListener) -> None:
        if listener.connection is not None:
            if listener.connection.fileno() in self._selector.get_map():
                self._selector.unregister(listener.connection)
            listener.connection.close()
            listener.connection = None

    # The methods below run in a thread of the pool, which owns the listener meanwhile.

    def _guarded(self, listener: FolderListener, work: Callable[[FolderListener], None]) -> None:
        try:
            work(listener)
            listener.failures, listener.lacking = 0, False
        except Exception as error:  # noqa: BLE001 - whatever it is, the mailbox is still polled
            if listener.connection is not None:
                listener.connection.close()
                listener.connection = None
            listener.lacking, listener.crowded = isinstance(error, NoFolder), isinstance(error, Throttled)
            least = AGAIN[1] if listener.lacking else AGAIN[0] * 2.0 ** min(listener.failures, 32)
            wait = min(least, AGAIN[1]) * random.uniform(1.0, 1.1)  # noqa: S311
            listener.failures += 1
            listener.renew_at = time.monotonic() + wait
            known = isinstance(error, SourceError | Denied) or passes(error)
            detail = str(error)[:300] if known else repr(error)[:300]
            level, about = 20 if known else 40, {"mailbox_id": listener.id, "folder": listener.folder}
            _log.log(level, "listener_lost", **about, error=detail, again_in=round(wait))

    def _connected(self, listener: FolderListener) -> None:
        with transaction(self._engine) as conn:
            mailbox = mailboxes.get(conn, listener.id, self._vault.decrypt)
        if mailbox is None:
            return
        connection = connect(mailbox, self._tokens(mailbox), time.monotonic() + CONNECT_SECONDS)
        listener.connection = connection
        connection.until = time.monotonic() + ANSWER
        if not connection.can_idle():
            connection.close()
            listener.connection, listener.unsupported = None, True
            return
        connection.examine(listener.folder)
        _listen(connection)
        listener.renew_at = time.monotonic() + RENEW
        listener.notified = True  # mail may have arrived before the IDLE began

    def _renewed(self, listener: FolderListener) -> None:
        """End the IDLE, note whether mail has arrived, and begin another."""
        connection = listener.connection
        assert connection is not None
        connection.until = time.monotonic() + ANSWER
        arrived = connection.end_idle()
        listener.notified |= _listen(connection) or arrived
        listener.renew_at = time.monotonic() + RENEW


def _listen(connection: ImapConnection) -> bool:
    """Begin an IDLE; whether mail was announced at once: those lines are buffered already, which the selector cannot see."""
    arrived = False
    for _ in range(5):
        arrived |= connection.idle()
        if not connection.pending():
            break
        arrived |= connection.end_idle()
    else:
        arrived |= connection.idle()
    return arrived


def run(settings: Settings) -> int:
    """Run the mail-idle process until SIGTERM or SIGINT. Returns the exit status."""
    with Process(settings, "mail-idle", "database_url", "keys") as process:
        engine = process.engine(THREADS + 2)
        vault = Vault(settings.fernet_keys())
        idler = Idler(
            engine, vault, Tokens(engine, vault).of, Choice(settings.mail_idle_folders, open_files.allow() - SPARE_FILES)
        )
        trouble: dict[str, str | None] = {"database": "not connected yet"}
        beat = process.serve({"database": process.database(lambda: trouble["database"])})
        process.closing(idler)
        while not process.stop.is_set():
            beat()
            try:
                idler.turn()
                trouble["database"] = None
            except Exception as error:
                if not passes(error):
                    raise
                trouble["database"] = f"Postgres: {type(error).__name__}"
                process.stop.wait(SURVEY)
    return process.status
