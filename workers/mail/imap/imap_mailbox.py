"""Mailboxes over IMAP: new mails by ascending UIDs, the backfill by descending ones.

A cursor holds the folder's UIDVALIDITY. If that changes, every UID is invalid: the cursor is `Gone`, both lanes begin anew, and
the backfill recognises held mails by their headers instead of fetching them again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Final

from schemas.mailbox import Cursor, Lane, Mailbox, MailItem, Print, RawMail
from workers.mail.imap.connection import Denied, Examined, ImapConnection, connect
from workers.mail.imap.fetch import Facts, MailFetcher
from workers.mail.mailbox_session import (
    CONNECT_SECONDS,
    MAX_MAIL,
    Away,
    Begun,
    Gone,
    Known,
    MailKind,
    NoFolder,
    PullBounds,
    Pulled,
    Token,
)

TOO_LARGE: Final = "too_large"  # the flag of a mail that is not fetched

_SPAN: Final = 1000  # UIDs that one backward search covers at first; more if few of them are in use
_MOST: Final = 50_000  # UIDs that one search covers at most: the answer is one line
_CHUNK: Final = 500  # UIDs that were found and are looked up at once
_TRIES: Final = 3  # pulls that find only mails that the server lists but does not return, before they are skipped
_LONG_NAME: Final = 255  # characters; in a key, a longer folder name is replaced by its digest


class ImapSession:
    """An open session. Its only state between two calls is the connection."""

    def __init__(self, mailbox: Mailbox, connection: ImapConnection) -> None:
        self._mailbox = mailbox
        self._connection = connection

    def folders(self) -> Sequence[str]:
        """The folders that can be read."""
        self._connection.until = time.monotonic() + CONNECT_SECONDS
        try:
            return self._connection.folders()
        except Denied as error:
            raise Away(str(error)) from None

    def begin(self, folder: str) -> Begun:
        """Split existing mails from future ones at the highest UID that the server has assigned."""
        self._connection.until = time.monotonic() + CONNECT_SECONDS
        try:
            opened = self._examine(folder)
            newest = self._newest(opened)
            total = self._total(opened)
        except Denied as error:
            raise NoFolder(f"{folder}: {error}") from None
        backfill = {"validity": opened.validity, "below": newest + 1} if total != 0 else None
        return Begun({"validity": opened.validity, "uid": newest}, backfill, total)

    def pull(self, folder: str, lane: Lane, cursor: Cursor, bounds: PullBounds, known: Known) -> Pulled:
        """The next mails of a lane; see `workers.mail.mailbox_session.MailboxSession`."""
        self._connection.until = bounds.until
        try:
            opened = self._examine(folder)
            if opened.validity != cursor["validity"]:
                raise Gone(f"{folder}: UIDVALIDITY is {opened.validity} and was {cursor['validity']}")
            pull = _Pull(self._connection, folder, opened, bounds, known)
            return pull.rising(cursor) if lane == "new" else pull.falling(cursor, self._mailbox.sync_from)
        except Denied as error:
            raise NoFolder(f"{folder}: {error}") from None

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def _examine(self, folder: str) -> Examined:
        """Open a folder. Raises `NoFolder` if the server hangs up at it twice but accepts new connections."""
        try:
            return self._connection.examine(folder)
        except NoFolder:
            raise
        except Away:
            self._connection.renew()
        try:
            return self._connection.examine(folder)
        except NoFolder:
            raise
        except Away as error:
            self._connection.renew()
            raise NoFolder(f"{folder}: {error}") from None

    def _newest(self, opened: Examined) -> int:
        """The highest UID that the server has assigned; without UIDNEXT, that of the last mail."""
        if opened.next:
            return opened.next - 1
        newest = self._connection.last() if opened.exists > _MOST else 0
        return newest or max(self._connection.search(1, None), default=0)

    def _total(self, opened: Examined) -> int | None:
        """The number of mails to backfill; None if counting them would take too large an answer."""
        since = _day(self._mailbox.sync_from)
        if since is None or not opened.exists:
            return opened.exists
        return len(self._connection.search(1, None, since)) if opened.exists <= _MOST else None


@dataclass
class _Taken:
    """The result of fetching from a list of UIDs."""

    mails: list[RawMail] = field(default_factory=list)
    kept: list[MailItem] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)  # fetched, held before, too old or too large
    missing: int = 0
    last: int = 0  # the last UID that was not left for the next pull
    cut: set[int] = field(default_factory=set)  # UIDs that were chosen but not fetched, for lack of time or by an error

    def pulled(self, cursor: Cursor, *, more: bool) -> Pulled:
        """As a `Pulled`. Mails after one in `cut` will be known in the next pull, and are counted then."""
        seen = len([uid for uid in self.done if uid > max(self.cut, default=0)])
        return Pulled(self.mails, cursor, more, seen, None, self.renamed, self.kept, self.missing)


class _Pull:
    """One pull of one folder."""

    def __init__(self, connection: ImapConnection, folder: str, opened: Examined, bounds: PullBounds, known: Known) -> None:
        self._connection = connection
        self._fetcher = MailFetcher(connection, bounds, folder, opened.validity)
        self._folder = folder
        self._opened = opened
        self._bounds = bounds
        self._known = known
        self._enough = time.monotonic() + bounds.seconds() / 2

    def rising(self, cursor: Cursor) -> Pulled:
        """New mails. The cursor moves to the highest UID that is done; past mails that are only listed after `_TRIES` pulls.

        Mails that it skips are requested again at the next reconciliation.
        """
        high = int(cursor["uid"])
        found = self._after(high)
        took = _Taken()
        for start in range(0, len(found), self._bounds.mails):
            self._take(took, found[start : start + self._bounds.mails], None)
            if took.done or time.monotonic() > self._enough:
                break  # otherwise the server returned none of these, which must not block the next ones
        seen = max((uid for uid in took.done if not took.cut or uid < min(took.cut)), default=high)
        more = bool(took.done) and seen < found[-1]
        place = {"validity": self._opened.validity, "uid": seen}
        if found and not took.done and not took.cut:
            tries = int(cursor.get("tries", 0)) + 1
            place |= {"tries": tries} if tries < _TRIES else {"uid": max(took.last, high)}
        return took.pulled(place, more=more)

    def falling(self, cursor: Cursor, since: datetime | None) -> Pulled:
        """The backfill. Mails that are listed but not returned are skipped; the next reconciliation requests them again."""
        below, span = int(cursor["below"]), _SPAN
        remap = cursor.get("remap")
        if remap is None:  # only the first pull has to check whether there are mails to recognise
            remap = self._known.older(self._folder, self._key(below))
        took = _Taken()
        while below > 1 and not took.mails and time.monotonic() < self._enough:
            low = max(1, below - span)
            found = self._connection.search(low, below - 1, _day(since))
            if not found:
                below, span = low, min(span * 8, _MOST)
                continue
            self._take(took, found[::-1][:_CHUNK], since, remap=bool(remap))
            below = max(took.cut) + 1 if took.cut else took.last if took.last > found[0] else low
        return took.pulled({"validity": self._opened.validity, "below": below, "remap": bool(remap)}, more=below > 1)

    def _after(self, high: int) -> list[int]:
        """UIDs above `high`, ascending; only the first of them if there are too many for one line."""
        low, end = high + 1, self._opened.next
        if not end and self._opened.exists > _MOST:
            end = self._connection.last() + 1
        while end and end - low > _MOST:
            found = self._connection.search(low, low + _MOST - 1)
            if found:
                return found
            low += _MOST
        return self._connection.search(low, None)

    def _take(self, took: _Taken, uids: Sequence[int], since: datetime | None, *, remap: bool = False) -> None:
        """Fetches those of `uids` that are not held, in order, until the bounds are reached; at least one, if there is any."""
        held = self._known.keys([self._key(uid) for uid in uids])
        fresh = [uid for uid in uids if self._key(uid) not in held]
        if not remap:
            fresh = fresh[: self._bounds.mails]
        facts = self._fetcher.facts(fresh, with_id=remap)
        renamed = self._recognised(facts) if remap else {}
        chosen: list[Facts] = []
        size = 0
        asked = set(fresh)
        for uid in uids:
            fact, key = facts.get(uid), self._key(uid)
            if key in held or key in renamed or (fact and since and fact.date < since):
                took.done.append(uid)
            elif uid not in asked or len(chosen) >= self._bounds.mails:
                break
            elif fact is None:
                took.missing += 1
            elif fact.size > MAX_MAIL:
                took.kept.append(self._item(fact))
                took.done.append(uid)
            elif chosen and size + fact.size > self._bounds.size:
                break
            else:
                chosen.append(fact)
                size += fact.size
            took.last = uid
        took.renamed |= {old: new for new, old in renamed.items()}
        self._bounds.hold(size)
        if chosen:
            self._fetcher.allow(chosen[0].size)  # otherwise one that takes longer than a batch would never be fetched
        self._fetch(took, chosen)

    def _fetch(self, took: _Taken, chosen: Sequence[Facts]) -> None:
        bodies, took.cut = self._fetcher.bodies(chosen)
        for fact in chosen:
            raw = bodies.pop(fact.uid, None)
            if raw is None:
                took.missing += fact.uid not in took.cut
            else:
                took.mails.append(RawMail(self._key(fact.uid), self._folder, raw, fact.date))
                took.done.append(fact.uid)

    def _recognised(self, facts: Mapping[int, Facts]) -> Mapping[str, str]:
        """New key -> old key, for mails that are held under a key of another UIDVALIDITY."""
        prints = {
            self._key(fact.uid): Print(fact.message_id, fact.size, fact.date)
            for fact in facts.values()
            if fact.message_id is not None
        }
        return self._known.alike(self._folder, prints) if prints else {}

    def _item(self, fact: Facts) -> MailItem:
        return MailItem(self._key(fact.uid), self._folder, fact.message_id, fact.size, fact.date, None, (TOO_LARGE,))

    def _key(self, uid: int) -> str:
        name = self._folder
        if len(name) > _LONG_NAME:
            name = sha256(name.encode(errors="replace")).hexdigest()
        return f"imap/{self._opened.validity}/{uid}/{name}"


def open_session(mailbox: Mailbox, token: Token | None) -> ImapSession:
    """Log in. Raises a `SourceError`."""
    return ImapSession(mailbox, connect(mailbox, token, time.monotonic() + CONNECT_SECONDS))


def _day(since: datetime | None) -> date | None:
    """The day to search from: a day early, because the server compares days in its own time zone."""
    return None if since is None else (since - timedelta(days=1)).date()


KIND: Final = MailKind(open_session)
