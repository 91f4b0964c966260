"""Fetching mails over IMAP: first their facts, then their bytes, in answers of a bounded size.

Mails that a server leaves out of an answer, refuses, or hangs up at, are requested again in smaller groups and at last one by
one, so that an unreadable mail does not hide others.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from imapclient.datetime_util import parse_to_datetime

from pipeline.mail.event_attributes import read_attributes
from workers.mail.imap.connection import Denied, ImapConnection
from workers.mail.imap.fetch_rows import Row, section
from workers.mail.imap.numbers import MAX_NUMBER
from workers.mail.imap.pieces import in_pieces
from workers.mail.mailbox_session import Away, Gone, PullBounds, SourceError

_FACTS: Final = "UID RFC822.SIZE INTERNALDATE"
_MESSAGE_ID: Final = "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"
_WHOLE: Final = "UID BODY.PEEK[]"
_FACTS_AT_ONCE: Final = (250, 10, 1)  # mails in one answer: in the first, second and third try
_AT_ONCE: Final = 100  # some servers fail above that
_ONE_ANSWER: Final = 2 * 1024 * 1024  # bytes of bodies in one answer
_SLOWEST: Final = 128 * 1024  # bytes a second; a slower mail runs out of time
_MAX_HANG_UPS: Final = 5  # mails at which the server hangs up, in one pull; with more, the server itself is failing
_MAX_RECONNECTS: Final = 20  # in one pull


@dataclass(frozen=True, slots=True)
class Facts:
    """The metadata of a mail, known before it is fetched."""

    uid: int
    size: int
    date: datetime
    message_id: str | None = None


class MailFetcher:
    """Fetches from a folder that is open on a connection, within bounds."""

    def __init__(self, connection: ImapConnection, bounds: PullBounds, folder: str, validity: int) -> None:
        """`folder` is open, with that UIDVALIDITY."""
        self._connection = connection
        self._bounds = bounds
        self._folder = folder
        self._validity = validity
        self._hang_ups: set[int] = set()
        self._reconnects = 0

    def facts(self, uids: Sequence[int], *, with_id: bool = False) -> dict[int, Facts]:
        """The facts of those of `uids` that the server returns; `with_id` includes the Message-ID."""
        items = f"{_FACTS} {_MESSAGE_ID}" if with_id else _FACTS
        found: dict[int, Facts] = {}
        for at_once in _FACTS_AT_ONCE:
            left = [uid for uid in uids if uid not in found]
            for start in range(0, len(left), at_once):
                for uid, row in self._rows(left[start : start + at_once], items):
                    size = row.get(b"RFC822.SIZE")
                    if isinstance(size, int) and size <= MAX_NUMBER:
                        found[uid] = _facts_of(uid, row)
        return found

    def bodies(self, chosen: Sequence[Facts]) -> tuple[dict[int, bytes], set[int]]:
        """The bytes of those of `chosen` that the server returns, and the UIDs that were not requested to the end.

        Raises a `SourceError` only if there is nothing to return: mails received before the error are kept.
        """
        found: dict[int, bytes] = {}
        settled: set[int] = set()
        try:
            for group in _groups(fact for fact in chosen if fact.size <= _ONE_ANSWER):
                found |= self._whole(group)
            for fact in chosen:
                if fact.uid not in found and fact.size <= _ONE_ANSWER:
                    found |= self._whole([fact])
                elif fact.uid not in found and (whole := self._in_pieces(fact)):
                    found[fact.uid] = whole
                settled.add(fact.uid)
        except SourceError:
            if not found:
                raise
        return found, {fact.uid for fact in chosen} - found.keys() - settled

    def allow(self, size: int) -> None:
        """Extend the deadline to the time that `size` bytes take at `_SLOWEST`, even beyond the bounds."""
        until = max(self._bounds.until, time.monotonic() + size / _SLOWEST)
        self._bounds = replace(self._bounds, until=until)
        self._connection.until = until

    def _whole(self, group: Sequence[Facts]) -> dict[int, bytes]:
        """Whole bodies. An empty one counts as missing, unless the server gave 0 as its size."""
        empty = {fact.uid for fact in group if fact.size == 0}
        found: dict[int, bytes] = {}
        for uid, row in self._rows([fact.uid for fact in group], _WHOLE):
            raw = section(row)
            if raw:
                found[uid] = raw
            elif uid in empty and any(name.startswith(b"BODY[") for name in row):
                found[uid] = b""
        return found

    def _in_pieces(self, fact: Facts) -> bytes | None:
        return in_pieces(lambda item: dict(self._rows([fact.uid], f"UID {item}")).get(fact.uid), fact.size)

    def _rows(self, uids: Sequence[int], items: str) -> Iterator[tuple[int, Row]]:
        """The rows of one FETCH; none if the server refuses or hangs up. For a single mail, a hang-up is retried once."""
        alone = len(uids) == 1
        if not uids or (alone and uids[0] in self._hang_ups):
            return
        for _ in range(2 if alone else 1):
            self._bounds.seconds()
            try:
                yield from self._connection.fetch(uids, items)
            except Denied:
                return
            except Away as error:
                self._reopen(error)
            else:
                return
        if alone:
            self._hang_ups.add(uids[0])

    def _reopen(self, error: Away) -> None:
        """Reconnects after the server hung up; raises `error` if it has done so too often."""
        self._bounds.seconds()
        self._reconnects += 1
        if self._reconnects > _MAX_RECONNECTS or len(self._hang_ups) >= _MAX_HANG_UPS:
            raise error
        self._connection.renew()
        try:
            opened = self._connection.examine(self._folder)
        except Denied:
            raise error from None
        if opened.validity != self._validity:
            raise Gone(f"{self._folder}: UIDVALIDITY is {opened.validity} and was {self._validity}")


def _facts_of(uid: int, row: Row) -> Facts:
    head = section(row)
    message_id = read_attributes(head, "thread", "", "").message_id if head else None
    return Facts(uid, row[b"RFC822.SIZE"], _date(row.get(b"INTERNALDATE")), message_id)


def _date(found: object) -> datetime:
    """When the server received the mail; the current time if INTERNALDATE is missing or malformed."""
    try:
        if isinstance(found, bytes):
            moment: datetime = parse_to_datetime(found, normalise=False)
            return moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        pass
    return datetime.now(UTC)


def _groups(facts: Iterable[Facts]) -> Iterator[list[Facts]]:
    group: list[Facts] = []
    size = 0
    for fact in facts:
        if group and (len(group) >= _AT_ONCE or size + fact.size > _ONE_ANSWER):
            yield group
            group, size = [], 0
        group.append(fact)
        size += fact.size
    if group:
        yield group
