"""Mailboxes read through the Gmail API: new mails from the history, older ones from a list.

The mailbox is read as a whole, except drafts, spam, trash, and mails that were only sent. A mail that is taken out of spam or
trash counts as arriving then. The source key is the API's message id, which never changes; the event id is the digest of the
bytes. Source: https://developers.google.com/workspace/gmail/api/guides/sync
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from schemas.mailbox import WHOLE, Cursor, Lane, Mailbox, RawMail
from workers.mail.api.exchange import Answer
from workers.mail.api.provider_api import (
    MARGIN,
    Api,
    Gathered,
    Wanted,
    malformed_as_away,
    number,
    page_by_page,
    server_time,
    value_at,
)
from workers.mail.api.quota import Paces
from workers.mail.mailbox_session import (
    MAX_MAIL,
    Away,
    Begun,
    Gone,
    Known,
    MailKind,
    PullBounds,
    Pulled,
    SourceError,
    Throttled,
    Token,
)

API: Final = "https://gmail.googleapis.com"
UNITS_PER_MINUTE: Final = 6000  # of each mailbox, in a project made since 2026-05-01; older ones have more
GET, LIST, HISTORY, PROFILE = 20, 5, 2, 1  # units
PAGE: Final = 100  # ids; a page is finished before the next is requested

_NOT_RECEIVED: Final = frozenset({"DRAFT", "SPAM", "TRASH"})
_RATES: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "concurrentLimitExceeded"})
_DAILY: Final = "dailyLimitExceeded"
_DAY: Final = 3600.0  # seconds between two tries while a daily limit is exhausted
_RAW: Final = re.compile(rb'"raw"\s*:\s*"([A-Za-z0-9_=-]*)"')
_PIECE: Final = 4 * 256 * 1024  # characters decoded at a time, so that a large mail is not in memory three times

# Burst and a minute's refill together stay within a minute's units: a sixth, and five sixths.
PACES: Final = Paces(UNITS_PER_MINUTE / 60 * 5 / 6, UNITS_PER_MINUTE / 6)


class GmailSession:
    """One mailbox; see `workers.mail.mailbox_session.MailboxSession`."""

    def __init__(self, mailbox: Mailbox, token: Token | None) -> None:
        self._mailbox = mailbox
        self._api = Api(mailbox, f"{mailbox.api_url or API}/gmail/v1/users/me", token, _fault, PACES.of(mailbox.id))

    def folders(self) -> Sequence[str]:
        """The one folder that stands for the whole mailbox."""
        return [WHOLE]

    @malformed_as_away()
    def begin(self, folder: str) -> Begun:
        """The history from now on, and the list of the mails that exist now; a mail that arrives in between is in both."""
        del folder
        self._api.end_by()
        answer = self._get("/profile", PROFILE)
        began = server_time(answer) - MARGIN
        said = answer.json()
        new = {"start": _text(said, "historyId"), "began": began.isoformat()}
        everything = self._mailbox.sync_from is None
        return Begun(new, {"began": began.isoformat()}, number(said.get("messagesTotal")) if everything else None)

    @malformed_as_away()
    def pull(self, folder: str, lane: Lane, cursor: Cursor, bounds: PullBounds, known: Known) -> Pulled:
        """Page after page of the history, or of the list."""
        del folder
        self._api.end_by(bounds.until)
        turn = self._arrived if lane == "new" else self._listed
        return page_by_page(lambda place, batch: turn(place, batch, known), cursor, bounds)

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()

    def _arrived(self, cursor: Cursor, batch: Gathered, known: Known) -> Pulled:
        """One page of the history. `start` stays the same for all pages and moves only after the last."""
        start, page = cursor["start"], cursor.get("page")
        query = {"startHistoryId": start, "maxResults": PAGE, "historyTypes": ["messageAdded", "labelRemoved"]}
        try:
            answer = self._get("/history", HISTORY, query | ({"pageToken": page} if page else {}), may_lack=True)
        except _BadRequest:
            if page is None:
                raise
            return Pulled([], {"start": start, "began": cursor["began"]}, more=True)  # what was done is known
        if answer.status == 404:
            raise Gone("the history no longer goes back that far")
        said = answer.json()
        # The first page's historyId: that of a later page may be newer than what the first page listed.
        then = cursor.get("then") or _text(said, "historyId")
        place = {"start": start, "began": cursor["began"], "page": page, "then": then}
        left = self._fetch(_ids_of_history(said.get("history", [])), cursor, batch, known)
        if left is not None:
            return Pulled([], {**place, "skip": left}, more=True)
        if following := said.get("nextPageToken"):
            return Pulled([], {**place, "page": following}, more=True)
        return Pulled([], {"start": then, "began": cursor["began"]}, more=False)

    def _listed(self, cursor: Cursor, batch: Gathered, known: Known) -> Pulled:
        """One page of the list, newest first."""
        page, since = cursor.get("page"), self._mailbox.sync_from
        query: dict[str, Any] = {"maxResults": PAGE} | ({"pageToken": page} if page else {})
        query |= {"q": f"after:{int(since.timestamp())}"} if since else {}
        try:
            said = self._get("/messages", LIST, query).json()
        except _BadRequest:
            if page is None:
                raise
            return Pulled([], {"began": cursor["began"]}, more=True)
        ids = [str(each["id"]) for each in said.get("messages", [])]
        total = number(said.get("resultSizeEstimate")) if since else None
        left = self._fetch(dict.fromkeys(ids, False), cursor, batch, known)
        if left is not None:
            return Pulled([], {**cursor, "skip": left}, more=True, total=total)
        following = said.get("nextPageToken")
        place = {"began": cursor["began"]} | ({"page": following} if following else {})
        return Pulled([], place, more=bool(following), seen=len(ids), total=total)

    def _fetch(self, ids: Mapping[str, bool], cursor: Cursor, batch: Gathered, known: Known) -> list[str] | None:
        """Adds to the batch the mails that are not known yet. None when all are done, else the ids skipped so far."""
        skipped = list(cursor.get("skip", []))
        wanted = [id_ for id_ in batch.fresh(ids, _key, known) if id_ not in skipped]
        began = datetime.fromisoformat(cursor["began"])

        def take(id_: str, answer: Answer) -> None:
            if not self._take(id_, answer, batch, began, sure=ids[id_]):
                skipped.append(id_)

        mails = {id_: Wanted(self._url(id_, "raw"), self._url(id_, "minimal")) for id_ in wanted}
        return None if self._api.download(mails, batch, take, GET, MAX_MAIL // 3 * 4 + 65_536) else skipped

    def _take(self, id_: str, answer: Answer, batch: Gathered, began: datetime, *, sure: bool) -> bool:
        """Adds the mail in an answer to the batch; false if it is unwanted, or was deleted since it was listed."""
        if answer.too_large:
            answer = self._api.get(self._url(id_, "minimal"), GET, may_lack=True)
            raw, flag = b"", "too_large"
        else:
            raw, flag = _extracted(answer), "unreadable"
        if answer.status == 404:
            return False
        said = answer.json()
        at, labels, since = _moment(said), _labels(said), self._mailbox.sync_from
        if (since is not None and at < since) or not (sure or _received(labels)) or "DRAFT" in labels:
            return False
        if raw:
            batch.add(RawMail(_key(id_), WHOLE, raw, at, backfill=at < began))
        else:
            batch.keep(_key(id_), WHOLE, number(said.get("sizeEstimate")) or 0, at, flag)
        return True

    def _url(self, id_: str, form: str) -> str:
        return f"{self._api.base}/messages/{quote(id_, safe='')}?format={form}"

    def _get(self, path: str, units: float, query: Mapping[str, Any] | None = None, *, may_lack: bool = False) -> Answer:
        asked = f"?{urlencode(query, doseq=True)}" if query else ""
        return self._api.get(f"{self._api.base}{path}{asked}", units, may_lack=may_lack)


class _BadRequest(Away):
    """The API rejects a request as malformed, which usually means that a page token has expired."""


def _fault(answer: Answer) -> SourceError | None:
    reasons = {each.get("reason") for each in value_at(answer, "error", "errors") or () if isinstance(each, dict)}
    if answer.status == 403 and reasons & {*_RATES, _DAILY}:
        return Throttled("the API throttles: " + ", ".join(sorted(map(str, reasons))), _DAY if _DAILY in reasons else 0.0)
    if answer.status == 400:
        return _BadRequest(f"answered 400: {value_at(answer, 'error', 'message')!r:.200}")
    return None


def _ids_of_history(records: Any) -> dict[str, bool]:
    """The distinct ids of arrived mails, in order; true if the labels at that time already show that the mail is wanted."""
    ids: dict[str, bool] = {}
    for record in records:
        for added in record.get("messagesAdded", []):
            labels = _labels(added["message"])
            if not labels or _received(labels):
                ids[str(added["message"]["id"])] = bool(labels)
        for removed in record.get("labelsRemoved", []):
            if {"SPAM", "TRASH"} & set(removed.get("labelIds", [])):
                ids.setdefault(str(removed["message"]["id"]), False)
    return ids


def _received(labels: AbstractSet[str]) -> bool:
    """Whether a mail was received, by its labels. A mail sent to oneself was."""
    return not labels & _NOT_RECEIVED and not ("SENT" in labels and "INBOX" not in labels)


def _labels(message: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(message.get("labelIds", []))


def _extracted(answer: Answer) -> bytes:
    """Removes the mail's bytes from the answer and returns them, decoded in place; empty if there are none."""
    found = _RAW.search(answer.body)
    if found is None or not isinstance(answer.body, bytearray):
        return b""
    start, end = found.span(1)
    del found  # a match holds a buffer of the body, which could not be resized otherwise
    rest, out = answer.body[:start] + answer.body[end:], start
    try:
        with memoryview(answer.body) as whole:
            for at in range(start, end, _PIECE):
                text = bytes(whole[at : min(at + _PIECE, end)])
                piece = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
                whole[out : out + len(piece)] = piece
                out += len(piece)
            raw = bytes(whole[start:out])
    except binascii.Error:
        raw = b""
    answer.body[:] = rest
    return raw


def _moment(said: Mapping[str, Any]) -> datetime:
    """When Google received the mail: internalDate is milliseconds since 1970, as text."""
    milliseconds = number(said.get("internalDate"))
    if milliseconds is None:
        raise Away("the API returned a message without internalDate")
    return datetime.fromtimestamp(min(milliseconds, 10**14) / 1000, UTC)


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not value:
        raise Away(f"the API did not return {name}")
    return str(value)


def _key(id_: str) -> str:
    return f"gmail:{id_}"


KIND: Final = MailKind(GmailSession, per_folder=False)
