"""Mailboxes read through Microsoft Graph: new mails from a delta for each folder, older ones from a list.

A mail is named by its immutable id. Graph generates a mail's bytes anew for each request, and they may differ, so that id is
the event id too. Source: https://learn.microsoft.com/graph/delta-query-messages
"""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from schemas.mailbox import EVERY_FOLDER, Cursor, Lane, Mailbox, RawMail
from workers.mail.api.exchange import Answer
from workers.mail.api.provider_api import (
    MARGIN,
    Api,
    Gathered,
    Wanted,
    error_text,
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
    NoFolder,
    PullBounds,
    Pulled,
    SourceError,
    Throttled,
    Token,
)

API: Final = "https://graph.microsoft.com/v1.0"
PAGE: Final = 100  # mails in a page, which are fetched before the next page is requested
WALK: Final = 500  # mails in a page of a delta's first round, of which hardly any are fetched
MAX_FOLDERS: Final = 5000  # folders that `*` stands for
MAX_LISTS: Final = 500  # requests to list them: one for each folder with subfolders, and for each hundred of those

_IDS: Final = 'IdType="ImmutableId"'
_FIELDS: Final = "receivedDateTime,lastModifiedDateTime,isDraft"
#: Folders with these names in every language. https://learn.microsoft.com/graph/api/resources/mailfolder
_WELL_KNOWN: Final = frozenset({"archive", "deleteditems", "drafts", "inbox", "junkemail", "outbox", "sentitems"})
_NOT_RECEIVED: Final = ("deleteditems", "drafts", "junkemail", "outbox", "sentitems")
_EXPIRED: Final = frozenset({"syncstatenotfound", "syncstateinvalid", "resyncrequired"})
_SHARED: Final = re.compile(r"Mail\.Read(Write)?\.Shared", re.IGNORECASE)

PACES: Final = Paces(10_000 / 600, 1000)  # requests of one application to one mailbox


class GraphSession:
    """One mailbox; see `workers.mail.mailbox_session.MailboxSession`."""

    def __init__(self, mailbox: Mailbox, token: Token | None) -> None:
        scope = mailbox.oauth.scope if mailbox.oauth else None
        # With consent to shared mailboxes, "me" is the person who consented: the mailbox is addressed by its name.
        me = f"users/{quote(mailbox.username, safe='@')}" if _SHARED.search(scope or "") else "me"
        self._mailbox = mailbox
        self._api = Api(mailbox, mailbox.api_url or API, token, _fault, PACES.of(mailbox.id))
        self._base = f"{self._api.base}/{me}"

    @malformed_as_away()
    def folders(self) -> Sequence[str]:
        """The paths of all folders except those for mail that was not received; parents before children."""
        self._api.end_by()
        others = {self._get(f"{self._base}/mailFolders/{name}", may_lack=True).json().get("id") for name in _NOT_RECEIVED}
        found, whole = self._tree()
        paths = [path for path, id_ in found if id_ not in others]
        return paths if whole else [*paths, EVERY_FOLDER]

    @malformed_as_away()
    def begin(self, folder: str) -> Begun:
        """The delta from its beginning, of which only mails that arrive from now on are fetched, and the list of all others."""
        self._api.end_by()
        answer = self._get(f"{self._base}/mailFolders/{quote(self._id(folder), safe='')}", may_lack=True)
        if answer.status == 404:
            raise NoFolder(f"there is no folder {folder!r}: {error_text(answer)}")
        place = {"folder": str(value_at(answer, "id")), "began": (server_time(answer) - MARGIN).isoformat()}
        if self._mailbox.sync_from is not None:
            return Begun(place, place)
        total = number(value_at(answer, "totalItemCount"))
        if total is None:
            raise Away("the API returned a folder without totalItemCount")
        return Begun(place, place, total)

    @malformed_as_away()
    def pull(self, folder: str, lane: Lane, cursor: Cursor, bounds: PullBounds, known: Known) -> Pulled:
        """Page after page of the delta, or of the list."""
        self._api.end_by(bounds.until)
        turn = self._changed if lane == "new" else self._listed
        return page_by_page(lambda place, batch: turn(folder, place, batch, known), cursor, bounds)

    def close(self) -> None:
        """Closes the connections."""
        self._api.close()

    def _changed(self, folder: str, cursor: Cursor, batch: Gathered, known: Known) -> Pulled:
        """One page of the delta. Its first round names every existing mail; those from before `began` are left to the list."""
        link, live = cursor.get("link"), cursor.get("live", False)
        first = f"{self._mail(cursor)}/delta?{_query({'$select': _FIELDS})}"
        page = self._page(folder, link or first, PAGE if live else WALK)
        following, end = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
        if not (following or end):
            raise Away("the API returned a page without a next or delta link")
        began = _moment(cursor["began"])
        entries = [each for each in page["value"] if "@removed" not in each and (live or _since(each, began))]
        left = self._fetch(folder, entries, cursor, batch, known)
        if left is not None:
            return Pulled([], {**cursor, "skip": left}, more=True)
        place = {"folder": cursor["folder"], "began": cursor["began"], "link": following or end}
        return Pulled([], place | ({"live": True} if live or not following else {}), more=bool(following))

    def _listed(self, folder: str, cursor: Cursor, batch: Gathered, known: Known) -> Pulled:
        """One page of the list, newest first. The cursor is a date: an offset would shift with each mail that is removed."""
        before, since, link = cursor.get("before"), self._mailbox.sync_from, cursor.get("link")
        bounds = [f"receivedDateTime ge {_text(since)}"] if since else []
        bounds += [f"receivedDateTime le {before}"] if before else []
        query = {"$select": _FIELDS, "$orderby": "receivedDateTime desc", "$top": PAGE}
        query |= {"$filter": " and ".join(bounds)} if bounds else {}
        page = self._page(folder, link or f"{self._mail(cursor)}?{_query(query)}")
        entries, following = page["value"], page.get("@odata.nextLink")
        left = self._fetch(folder, entries, cursor, batch, known)
        if left is not None:
            return Pulled([], {**cursor, "skip": left}, more=True)
        place = {"folder": cursor["folder"], "began": cursor["began"]}
        dates = [each["receivedDateTime"] for each in entries]
        seen = sum(date != before for date in dates)
        if following and dates and dates[-1] != before:
            place["before"] = dates[-1]
        elif following:  # a page holds mails of one second only
            place |= {"before": before, "link": following}
        return Pulled([], place, more=bool(following), seen=seen)

    def _page(self, folder: str, url: str, size: int | None = None) -> dict[str, Any]:
        """A page of a folder. Raises `Gone` if the folder is gone: `begin` uses its successor of the same name, if any."""
        answer = self._get(url, size, may_lack=True)
        if answer.status == 404:
            raise Gone(f"the folder {folder!r} is not there any more")
        return answer.json()

    def _fetch(
        self, folder: str, entries: Sequence[Mapping[str, Any]], cursor: Cursor, batch: Gathered, known: Known
    ) -> list[str] | None:
        """Adds to the batch the mails that are not known yet. None when all are done, else the ids skipped so far."""
        skipped, began = list(cursor.get("skip", [])), _moment(cursor["began"])
        named = {str(each["id"]): each for each in entries}
        fresh = [id_ for id_ in batch.fresh(named, _key, known) if id_ not in skipped]
        dated = {id_: at for id_ in fresh if (at := self._wanted(id_, named[id_])) is not None}

        def take(id_: str, answer: Answer) -> None:
            if answer.status == 404:  # deleted since it was listed
                skipped.append(id_)
            elif answer.too_large or not answer.body:
                size = number(answer.headers.get("content-length")) or 0
                batch.keep(_key(id_), folder, size, dated[id_], "too_large" if answer.too_large else "unreadable")
            else:
                at, raw = dated[id_], bytes(answer.body)
                batch.add(RawMail(_key(id_), folder, raw, at, event_id=id_, backfill=at < began))

        mails = {id_: Wanted(f"{self._url(id_)}/$value", self._about(id_), {"Prefer": _IDS}) for id_ in dated}
        return None if self._api.download(mails, batch, take, 1, MAX_MAIL) else skipped

    def _wanted(self, id_: str, entry: Mapping[str, Any]) -> datetime | None:
        """When a mail was received; None if it is not to be read. An entry of a delta may contain changed fields only."""
        if "receivedDateTime" not in entry or "isDraft" not in entry:
            entry = self._get(self._about(id_), may_lack=True).json()
        received, since = entry.get("receivedDateTime"), self._mailbox.sync_from
        if received is None or entry.get("isDraft"):
            return None
        at = _moment(received)
        return None if since is not None and at < since else at

    def _url(self, id_: str) -> str:
        return f"{self._base}/messages/{quote(id_, safe='')}"

    def _about(self, id_: str) -> str:
        return f"{self._url(id_)}?{_query({'$select': _FIELDS})}"

    def _id(self, folder: str) -> str:
        """The API's name of a folder: a well-known name, or else the id of the folder with this path."""
        name = folder.replace(" ", "").casefold()
        if name in _WELL_KNOWN:
            return name
        beyond = f"there are more folders than {MAX_FOLDERS}, or than {MAX_LISTS} requests list, and those beyond are not read"
        if folder == EVERY_FOLDER:
            raise NoFolder(f"{beyond}: name those to be read in `folders`")
        tree, whole = self._tree(folder)
        found = next((id_ for path, id_ in tree if path.casefold() == folder.casefold()), None)
        if found is None:
            raise NoFolder(f"there is no folder {folder!r}" if whole else f"{folder!r} was not found: {beyond}")
        return found

    def _tree(self, towards: str | None = None) -> tuple[list[tuple[str, str]], bool]:
        """The folders' paths and ids, parents before children, and whether that is all of them.

        With `towards`, a path, only folders on that path are descended into.
        """
        found: list[tuple[str, str]] = []
        ahead = deque([("", f"{self._base}/mailFolders?{_query({'$top': PAGE})}")])
        for _ in range(MAX_LISTS):
            if not ahead or len(found) > MAX_FOLDERS:
                break
            above, url = ahead.popleft()
            page = self._get(url).json()
            for each in page["value"]:
                path, id_ = f"{above}{each['displayName']}", str(each["id"])
                found.append((path, id_))
                leads = towards is None or towards.casefold().startswith(f"{path}/".casefold())
                if each.get("childFolderCount") and leads:
                    below = f"{self._base}/mailFolders/{quote(id_, safe='')}/childFolders?{_query({'$top': PAGE})}"
                    ahead.append((f"{path}/", below))
            if following := page.get("@odata.nextLink"):
                ahead.appendleft((above, following))
        return found[:MAX_FOLDERS], not ahead and len(found) <= MAX_FOLDERS

    def _mail(self, cursor: Cursor) -> str:
        return f"{self._base}/mailFolders/{quote(cursor['folder'], safe='')}/messages"

    def _get(self, url: str, page: int | None = None, *, may_lack: bool = False) -> Answer:
        prefer = _IDS if page is None else f"{_IDS}, odata.maxpagesize={page}"
        return self._api.get(url, 1, {"Prefer": prefer}, may_lack=may_lack)


def _fault(answer: Answer) -> SourceError | None:
    code = str(value_at(answer, "error", "code") or "").casefold()
    if answer.status == 410 or (answer.status == 400 and code in _EXPIRED):
        return Gone("the state of the delta has expired")
    if answer.status in (429, 509) or (answer.status == 503 and "retry-after" in answer.headers):
        return Throttled(f"the API throttles: {code}"[:300], 0.0)
    return None


def _since(entry: Mapping[str, Any], began: datetime) -> bool:
    """Whether a mail was received or moved here since `began`. A moved mail keeps its date, which the list may have passed."""
    moments = [entry[name] for name in ("receivedDateTime", "lastModifiedDateTime") if name in entry]
    return not moments or any(_moment(each) >= began for each in moments)


def _query(values: Mapping[str, Any]) -> str:
    return urlencode(values, quote_via=quote, safe="$,")


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(id_: str) -> str:
    return f"graph:{id_}"


KIND: Final = MailKind(GraphSession)
