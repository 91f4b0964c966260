"""One authenticated connection to an IMAP server (RFC 3501): the commands that reading needs, with errors as `SourceError`s.

It never changes the mailbox: EXAMINE instead of SELECT, BODY.PEEK instead of BODY. Rows of FETCH may come unsolicited,
unsorted, without a UID, or not at all.
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

from ops.runtime.tls import system_context
from pipeline.formats.dead_letter import is_plain
from schemas.mailbox import Mailbox
from workers.mail.imap.fetch_rows import Row, rows
from workers.mail.imap.list_rows import names
from workers.mail.imap.numbers import LARGEST_UID, number, sequence_set
from workers.mail.imap.wire import MAX_ANSWER, Client, Clock
from workers.mail.mailbox_session import CONNECT_SECONDS, Away, NoFolder, Refused, SourceError, Throttled, Token
from workers.net.terms import deployment

CROWDED_SECONDS: Final = 60.0  # until the next try after a server refused a connection as too many
_BYE_SECONDS: Final = 0.5

#: RFC 5530's codes, and the texts of servers that do not use them.
_REFUSES: Final = re.compile(r"\[(AUTHENTICATIONFAILED|AUTHORIZATIONFAILED|EXPIRED|PRIVACYREQUIRED)\b", re.IGNORECASE)
_CROWDED: Final = re.compile(r"\[(LIMIT|INUSE)\b|too many|maximum number|rate limit|throttl|exceeded", re.IGNORECASE)
_TEMPORARY: Final = re.compile(r"\[(UNAVAILABLE|SERVERBUG|CONTACTADMIN)\b|temporar|try again|unavailable|busy", re.IGNORECASE)
_ARRIVED: Final = re.compile(rb"\* \d+ EXISTS\b", re.IGNORECASE)

#: Raised by the libraries on malformed answers; RecursionError on parentheses nested a thousand deep.
_MALFORMED: Final = (ProtocolError, ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)


class Denied(Exception):
    """The server answered NO or BAD to a command; the connection is still usable."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A folder as EXAMINE shows it. `next` is UIDNEXT, or None if the server does not send it."""

    validity: int
    next: int | None
    exists: int


class ImapConnection:
    """An open, authenticated connection. The caller sets `until`, a monotonic deadline, before each use."""

    def __init__(self, log_in: Callable[[float], Client], until: float) -> None:
        """`log_in` opens and authenticates a connection by a monotonic deadline. Raises a `SourceError`, as `log_in` does."""
        self._log_in = log_in
        self._take(log_in(until))

    def _take(self, client: Client) -> None:
        self._client = client
        self._wire = client.wire

    def renew(self) -> None:
        """Replace a lost connection. Afterwards no folder is open. Raises a `SourceError`."""
        until = self.until
        self._wire.hang_up()
        self._take(self._log_in(until))
        self.until = until

    @property
    def until(self) -> float:
        """The deadline of the current command, by the monotonic clock."""
        return self._client.clock.until

    @until.setter
    def until(self, until: float) -> None:
        self._client.clock.until = until

    def folders(self) -> list[str]:
        """The names of the readable folders. Names that are not plain text, which modified UTF-7 can encode, are left out."""
        with self._command("LIST"):
            self._wire.untagged_responses.pop("LIST", None)
            status, data = self._wire.list()
            if status != "OK":
                raise imaplib.IMAP4.error(f"LIST: {_text(data)}")
            return [name for name in dict.fromkeys(names(data)) if is_plain(name)]

    def examine(self, folder: str) -> Examined:
        """Open a folder for reading. Raises `NoFolder`."""
        try:
            with self._command("EXAMINE"):
                found = self._client.select_folder(folder, readonly=True)
                after = found.get(b"UIDNEXT")
                validity, exists = number(found.get(b"UIDVALIDITY", 0)), number(found.get(b"EXISTS", 0))
                return Examined(validity, None if after is None else number(after), exists)
        except Denied as error:
            raise NoFolder(f"{folder}: {error}") from None

    def search(self, first: int, last: int | None, since: date | None = None) -> list[int]:
        """The UIDs from `first` to `last`, or to the end, ascending; on or after the day `since` by the server's clock.

        The sequence `n:*` includes the last mail even if its UID is below n; it is left out. Raises `Denied`.
        """
        criteria = [f"UID {first}:{'*' if last is None else last}"]
        criteria += [f"SINCE {since.day:02}-{_MONTHS[since.month - 1]}-{since.year}"] if since else []
        return sorted(uid for uid in self._found(*criteria) if uid >= first and (last is None or uid <= last))

    def last(self) -> int:
        """The UID of the last mail, which `n:*` always includes (RFC 3501 §6.4.8); 0 if the server leaves it out."""
        return max(self._found(f"UID {LARGEST_UID}:*"), default=0)

    def fetch(self, uids: Sequence[int], items: str) -> Iterator[tuple[int, Row]]:
        """The rows with `items` for `uids`, in any order; no row for a mail that the server does not return.

        Rows of other mails, and rows without a UID, are left out. Raises `Denied`.
        """
        self._wire.untagged_responses.pop("FETCH", None)  # unsolicited rows from before
        asked = set(uids)
        for row in rows(self._uid("FETCH", sequence_set(uids), f"({items})")):
            uid = row.get(b"UID")
            if isinstance(uid, int) and uid in asked:
                yield uid, row

    def idle(self) -> bool:
        """Begin IDLE (RFC 2177); whether the server announced mail before its continuation response. Raises `Denied`."""
        if not self.can_idle():
            raise Denied("the server does not understand IDLE")
        with self._command("IDLE"), self._wire.set_aside() as lines:  # the library drops lines before that
            self._client.idle()
        return any(map(_ARRIVED.match, lines))

    def end_idle(self) -> bool:
        """End IDLE; whether mails have arrived meanwhile."""
        with self._command("DONE"):
            _, told = self._client.idle_done()
        return any(len(each) > 1 and isinstance(each[1], bytes) and each[1].upper() == b"EXISTS" for each in told)

    def can_idle(self) -> bool:
        """Whether the server supports IDLE."""
        with self._command("CAPABILITY"):
            return bool(self._client.has_capability("IDLE"))

    def pending(self) -> bool:
        """Whether there is unread input."""
        with self._command("IDLE"):
            return self._wire.pending()

    def fileno(self) -> int:
        """The socket's file descriptor, for a selector."""
        return int(self._wire.sock.fileno())

    def close(self) -> None:
        """Send LOGOUT, without waiting for an answer, and close the socket."""
        self.until = min(self.until, time.monotonic() + _BYE_SECONDS)
        with suppress(OSError, ValueError):  # it may be gone already
            self._wire.send(b"ZZ LOGOUT\r\n")
        self._wire.hang_up()

    def _found(self, *criteria: str) -> set[int]:
        lines = self._uid("SEARCH", *criteria)
        with self._command("SEARCH"):
            # Keep UIDs; ignore spaces and `(MODSEQ n)`.
            return {number(word) for line in lines if isinstance(line, bytes) for word in line.split() if word.isdigit()}

    def _uid(self, command: str, *arguments: str) -> list[Any]:
        with self._command(command):
            status, data = self._wire.uid(command, *arguments)
            if status != "OK":
                raise imaplib.IMAP4.error(f"{command}: {_text(data)}")
        return data

    @contextmanager
    def _command(self, what: str) -> Iterator[None]:
        self._client.clock.bytes = MAX_ANSWER
        try:
            with _errors_translated(what):
                yield
        except Away:
            self._wire.hang_up()  # the rest of this answer must not be read as the next one
            raise


def connect(mailbox: Mailbox, token: Token | None, until: float) -> ImapConnection:
    """Connect and log in. Raises a `SourceError`."""
    return ImapConnection(lambda until: _authenticated(mailbox, token, until), until)


def _authenticated(mailbox: Mailbox, token: Token | None, until: float) -> Client:
    until = min(until, time.monotonic() + CONNECT_SECONDS)
    fresh = False
    while True:
        try:
            return _connect(mailbox, token(fresh=fresh) if token else None, until)
        except Refused:
            if token is None or fresh:
                raise
            fresh = True  # a token may have been revoked before it expired


def _context(ca: str | None) -> ssl.SSLContext:
    return system_context() if ca is None else ssl.create_default_context(cadata=ca)


def _connect(mailbox: Mailbox, access: str | None, until: float) -> Client:
    try:
        with _errors_translated("connecting"):
            context = _context(mailbox.ca) if mailbox.tls else None
            client = Client(mailbox.host, mailbox.port, context, Clock(until), deployment().allowed)
    except Denied as error:
        raise _temporary(str(error)) or Away(str(error)) from None
    try:
        with _errors_translated("logging in"):
            _log_in(client, mailbox, access)
    except Away as error:
        client.wire.hang_up()
        raise Away(_without_credentials(str(error), mailbox, access)) from None
    except Denied as error:
        client.wire.hang_up()
        text = _without_credentials(str(error), mailbox, access)
        refused = bool(_REFUSES.search(text))
        raise (None if refused else _temporary(text)) or Refused(text, certain=refused) from None
    except BaseException:
        client.wire.hang_up()
        raise
    return client


def _log_in(client: Client, mailbox: Mailbox, access: str | None) -> None:
    """Log in. XOAUTH2's second challenge holds the error; an empty response makes the server answer NO."""
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


def _without_credentials(text: str, mailbox: Mailbox, access: str | None) -> str:
    """A server's text, unless it repeats the credentials; a prefix of the secret counts, because the text may be cut."""
    secret = access or mailbox.password or ""
    sent = f"user={mailbox.username}\x01auth=Bearer {secret}" if access else f"\0{mailbox.username}\0{secret}"
    echoes = (secret[:20], b64encode(sent.encode()).decode()[:20])
    return "logging in: the server repeats the credentials" if any(echo and echo in text for echo in echoes) else text


def _temporary(text: str) -> SourceError | None:
    """The error for a NO that is temporary; None if it is not."""
    if _CROWDED.search(text):
        return Throttled(text, CROWDED_SECONDS)
    return Away(text) if _TEMPORARY.search(text) else None


@contextmanager
def _errors_translated(what: str) -> Iterator[None]:
    """Turns errors into `Away`, or into `Denied` if the server answered NO or BAD."""
    try:
        yield
    except TimeoutError as error:
        raise Away(f"{what}: the server did not answer in time ({_text(error)})") from None
    except (imaplib.IMAP4.abort, OSError, EOFError) as error:
        raise Away(f"{what}: {_text(error)}") from None
    except _MALFORMED as error:
        raise Away(f"{what}: the server's answer is malformed: {_text(error)}") from None
    except imaplib.IMAP4.error as error:  # of which a ProtocolError is one
        raise Denied(_text(error)) from None


def _text(said: object) -> str:
    """The text of a server or a library, as one short line."""
    if isinstance(said, list):
        said = b" ".join(each for each in said if isinstance(each, bytes)).decode("utf-8", "replace")
    text = str(said) or type(said).__name__
    return "".join(char if char.isprintable() else " " for char in text)[:300]


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
