"""One authenticated connection to an IMAP server (RFC 3501): the few commands that reading needs, and its errors in our words.

It reads and never changes: EXAMINE instead of SELECT, BODY.PEEK instead of BODY. Answers are taken with care: rows of FETCH may
come unasked, unsorted, without a UID, or not at all.
"""

import imaplib
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from imapclient.exceptions import ProtocolError

from pipeline.formats.dead_letter import is_plain
from schemas.mailbox import Mailbox
from workers.mail.imap.fetch_rows import Row, rows
from workers.mail.imap.list_rows import names
from workers.mail.imap.wire import MAX_ANSWER, Client, Clock
from workers.mail.mailbox_session import CONNECT_SECONDS, Away, NoFolder, Refused, SourceError, Throttled, Token
from workers.net.terms import deployment

CROWDED_SECONDS: Final = 60.0  # to stay away from a server that has too many of us
_BYE_SECONDS: Final = 0.5

#: RFC 5530's codes, and what servers say that know none of them.
_REFUSES: Final = re.compile(r"\[(AUTHENTICATIONFAILED|AUTHORIZATIONFAILED|EXPIRED|PRIVACYREQUIRED)\b", re.IGNORECASE)
_CROWDED: Final = re.compile(r"\[(LIMIT|INUSE)\b|too many|maximum number|rate limit|throttl|exceeded", re.IGNORECASE)
_PASSES: Final = re.compile(r"\[(UNAVAILABLE|SERVERBUG|CONTACTADMIN)\b|temporar|try again|unavailable|busy", re.IGNORECASE)
_ARRIVED: Final = re.compile(rb"\* \d+ EXISTS\b", re.IGNORECASE)

#: What the libraries raise on an answer that makes no sense, one of parentheses nested a thousand deep among them.
_NONSENSE: Final = (ProtocolError, ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)


class Denied(Exception):
    """The server answered NO or BAD to a command, and the connection is still good."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A folder as EXAMINE shows it. `next` is UIDNEXT, where the server says it."""

    validity: int
    next: int | None
    exists: int


class ImapConnection:
    """An open, authenticated connection. Whoever uses it sets `until` before, of the monotonic clock."""

    def __init__(self, log_in: Callable[[float], Client], until: float) -> None:
        """`log_in` authenticates a connection, by a moment of the monotonic clock. Raises a `SourceError`, as it does."""
        self._log_in = log_in
        self._take(log_in(until))

    def _take(self, client: Client) -> None:
        self._client = client
        self._wire = client.wire

    def renew(self) -> None:
        """Connect anew, in place of a connection that was lost. No folder is open. Raises a `SourceError`."""
        until = self.until
        self._wire.hang_up()
        self._take(self._log_in(until))
        self.until = until

    @property
    def until(self) -> float:
        """When what is being done must be over."""
        return self._client.clock.until

    @until.setter
    def until(self, until: float) -> None:
        self._client.clock.until = until

    def folders(self) -> list[str]:
        """The names of the folders that can be read, and kept: modified UTF-7 can say what is no text, and nobody meant it."""
        with self._spoken("LIST"):
            self._wire.untagged_responses.pop("LIST", None)
            status, data = self._wire.list()
            if status != "OK":
                raise imaplib.IMAP4.error(f"LIST: {_text(data)}")
            return [name for name in dict.fromkeys(names(data)) if is_plain(name)]

    def examine(self, folder: str) -> Examined:
        """Open a folder for reading. Raises `NoFolder`."""
        try:
            with self._spoken("EXAMINE"):
                found = self._client.select_folder(folder, readonly=True)
        except Denied as error:
            raise NoFolder(f"{folder}: {error}") from None
        return Examined(int(found.get(b"UIDVALIDITY", 0)), found.get(b"UIDNEXT"), int(found.get(b"EXISTS", 0)))

    def search(self, first: int, last: int | None, since: date | None = None) -> list[int]:
        """The UIDs from `first` to `last`, or to the end, ascending; on or after the day `since` by the server's clock.

        The sequence `n:*` names the last mail even where that is below n: such are left out. Raises `Denied`.
        """
        criteria = [f"UID {first}:{'*' if last is None else last}"]
        criteria += [f"SINCE {since.day:02}-{_MONTHS[since.month - 1]}-{since.year}"] if since else []
        lines = self._uid("SEARCH", *criteria)
        # Digits alone: a trailing space, or a (MODSEQ n), is none of them.
        found = {int(word) for line in lines if isinstance(line, bytes) for word in line.split() if word.isdigit()}
        return sorted(uid for uid in found if uid >= first and (last is None or uid <= last))

    def fetch(self, uids: Sequence[int], items: str) -> Iterator[tuple[int, Row]]:
        """What the server gives of `items` for `uids`: a row for each, in any order; none for those it does not give.

        Rows of others, and rows without a UID, are left out. Raises `Denied`.
        """
        self._wire.untagged_responses.pop("FETCH", None)  # what came unasked before
        asked = set(uids)
        for row in rows(self._uid("FETCH", _sequence(uids), f"({items})")):
            uid = row.get(b"UID")
            if isinstance(uid, int) and uid in asked:
                yield uid, row

    def idle(self) -> bool:
        """Ask to be told of what arrives (RFC 2177); whether the server told of it before it agreed. Raises `Denied`."""
        if not self.can_idle():
            raise Denied("the server does not understand IDLE")
        with self._spoken("IDLE"), self._wire.set_aside() as lines:  # the library takes none before the server agrees
            self._client.idle()
        return any(map(_ARRIVED.match, lines))

    def end_idle(self) -> bool:
        """Ask no more; whether mails have arrived meanwhile."""
        with self._spoken("DONE"):
            _, told = self._client.idle_done()
        return any(len(each) > 1 and isinstance(each[1], bytes) and each[1].upper() == b"EXISTS" for each in told)

    def can_idle(self) -> bool:
        """Whether the server understands IDLE."""
        with self._spoken("CAPABILITY"):
            return bool(self._client.has_capability("IDLE"))

    def pending(self) -> bool:
        """Whether something has come that was not read yet."""
        with self._spoken("IDLE"):
            return self._wire.pending()

    def fileno(self) -> int:
        """The socket, to wait for."""
        return int(self._wire.sock.fileno())

    def close(self) -> None:
        """Say goodbye, and hang up."""
        self.until = min(self.until, time.monotonic() + _BYE_SECONDS)
        with suppress(OSError, ValueError):  # it may be gone already
            self._wire.send(b"ZZ LOGOUT\r\n")
        self._wire.hang_up()

    def _uid(self, command: str, *arguments: str) -> list[Any]:
        with self._spoken(command):
            status, data = self._wire.uid(command, *arguments)
            if status != "OK":
                raise imaplib.IMAP4.error(f"{command}: {_text(data)}")
        return data

    @contextmanager
    def _spoken(self, what: str) -> Iterator[None]:
        self._client.clock.bytes = MAX_ANSWER
        try:
            with _said(what):
                yield
        except Away:
            self._wire.hang_up()  # what is left of an answer must not be taken for another one
            raise


def connect(mailbox: Mailbox, token: Token | None, until: float) -> ImapConnection:
    """Connect and log in. Raises a `SourceError`."""
    return ImapConnection(lambda until: _logged_in(mailbox, token, until), until)


def _logged_in(mailbox: Mailbox, token: Token | None, until: float) -> Client:
    until = min(until, time.monotonic() + CONNECT_SECONDS)
    fresh = False
    while True:
        try:
            return _connect(mailbox, token(fresh=fresh) if token else None, until)
        except Refused:
            if token is None or fresh:
                raise
            fresh = True  # a token may have been withdrawn before its time


def _connect(mailbox: Mailbox, access: str | None, until: float) -> Client:
    try:
        with _said("connecting"):
            context = ssl.create_default_context(cadata=mailbox.ca) if mailbox.tls else None
            client = Client(mailbox.host, mailbox.port, context, Clock(until), deployment().allowed)
    except Denied as error:
        raise _passing(str(error)) or Away(str(error)) from None
    try:
        with _said("logging in"):
            _log_in(client, mailbox, access)
    except Away as error:
        client.wire.hang_up()
        raise Away(_unechoed(str(error), mailbox, access)) from None
    except Denied as error:
        client.wire.hang_up()
        text = _unechoed(str(error), mailbox, access)
        refused = bool(_REFUSES.search(text))
        raise (None if refused else _passing(text)) or Refused(text, certain=refused) from None
    except BaseException:
        client.wire.hang_up()
        raise
    return client


def _log_in(client: Client, mailbox: Mailbox, access: str | None) -> None:
    """XOAUTH2's second challenge holds the error, and is answered by nothing, for the server to say NO."""
    if access is not None:
        words = [f"user={mailbox.username}\x01auth=Bearer {access}\x01\x01".encode()]
        client.sasl_login("XOAUTH2", lambda _challenge: words.pop() if words else b"")
        return
    login, password = mailbox.username, mailbox.password or ""
    if client.has_capability("AUTH=PLAIN"):
        client.sasl_login("PLAIN", lambda _challenge: f"\0{login}\0{password}".encode())
    elif (login + password).isascii():
        client.login(login, password)
    else:
        raise imaplib.IMAP4.error("the server takes passwords in ASCII only")


def _unechoed(text: str, mailbox: Mailbox, access: str | None) -> str:
    """What a server said, unless it repeats what it was told: the beginning of a secret is enough, as the text may be cut."""
    secret = access or mailbox.password or ""
    sent = f"user={mailbox.username}\x01auth=Bearer {secret}" if access else f"\0{mailbox.username}\0{secret}"
    echoes = (secret[:20], b64encode(sent.encode()).decode()[:20])
    return "logging in: the server repeats the credentials" if any(echo and echo in text for echo in echoes) else text


def _passing(text: str) -> SourceError | None:
    """What a NO means that will be over some day."""
    if _CROWDED.search(text):
        return Throttled(text, CROWDED_SECONDS)
    return Away(text) if _PASSES.search(text) else None


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Raises what goes wrong as `Away`, or `Denied` where the server only said no."""
    try:
        yield
    except TimeoutError as error:
        raise Away(f"{what}: the server did not answer in time ({_text(error)})") from None
    except (imaplib.IMAP4.abort, OSError, EOFError) as error:
        raise Away(f"{what}: {_text(error)}") from None
    except _NONSENSE as error:
        raise Away(f"{what}: the server's answer makes no sense: {_text(error)}") from None
    except imaplib.IMAP4.error as error:  # of which a ProtocolError is one
        raise Denied(_text(error)) from None


def _sequence(uids: Sequence[int]) -> str:
    """UIDs as a sequence set (RFC 3501 §9), neighbours as ranges."""
    ranges: list[list[int]] = []
    for uid in sorted(uids):
        if ranges and uid == ranges[-1][1] + 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges)


def _text(said: object) -> str:
    """What a server or a library said, as one short line."""
    if isinstance(said, list):
        said = b" ".join(each for each in said if isinstance(each, bytes)).decode("utf-8", "replace")
    text = str(said) or type(said).__name__
    return "".join(char if char.isprintable() else " " for char in text)[:300]


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
