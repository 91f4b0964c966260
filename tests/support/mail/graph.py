"""Microsoft Graph's mail API and Microsoft's token endpoint, answering as Microsoft documents it."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from support.mail.api import Asked, Fake, Said, Tokens

BASE = "/v1.0/me"
MESSAGE = "#microsoft.graph.message"
INNER = {"date": "2026-11-20T10:00:00", "request-id": "r-1", "client-request-id": "r-1"}
WELL_KNOWN = {"inbox": "Inbox", "sentitems": "Sent Items", "junkemail": "Junk Email", "drafts": "Drafts"}
TOP = {f"AQMk-{name}": title for name, title in WELL_KNOWN.items()} | {"AQMk-shop": "Shop"}
BELOW = {"AQMk-shop": {"AQMk-shop-orders": "Orders"}}


def error(status: int, code: str, message: str, **headers: str) -> Said:
    return Said(status, {"error": {"code": code, "message": message, "innerError": INNER}}, headers)


NOT_FOUND = error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
GONE = error(
    410,
    "SyncStateNotFound",
    "The sync state generation is not found. The delta token is expired and data must be synchronized again.",
    Location="https://graph.microsoft.com/v1.0/me/mailfolders('AQMk')/messages/delta?$deltatoken=",
)
GONE_AS_400 = error(400, "syncStateNotFound", "The sync state generation is not found.")
THROTTLED = error(429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", **{"Retry-After": "17"})
THROTTLED_OLD = error(429, "UnknownError", "", **{"Retry-After": "10"})
UNAVAILABLE = error(503, "serviceNotAvailable", "The service is temporarily unavailable.", **{"Retry-After": "5"})
BROKEN = error(500, "generalException", "An internal server error occurred.")
DENIED = error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
NOT_SUPPORTED = error(405, "ErrorInvalidRequest", "The OData request is not supported.")
UNAUTHORIZED = error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
BAD_REQUEST = error(400, "BadRequest", "Invalid filter clause")


@dataclass
class Mail:
    id: str
    raw: bytes
    folder: str
    at: datetime
    modified: datetime
    read: bool = False
    draft: bool = False


class Graph(Fake):
    """A mailbox with folders. Delta tokens are positions in the log of changes."""

    token_path = "/common/oauth2/v2.0/token"
    kind, entrance = "graph", "/mailFolders"
    failure, unavailable, throttled = BROKEN, UNAVAILABLE, THROTTLED

    def __init__(self, **tokens: Any) -> None:
        super().__init__(Tokens(refusal=_refusal, **tokens), self._told, UNAUTHORIZED)
        self.mails: dict[str, Mail] = {}
        self.changes: list[tuple[str, str]] = []  # folder, id
        self.folders = TOP | BELOW["AQMk-shop"]
        self.oldest = 0  # delta tokens before this have expired
        self.page = 1000  # most entries in one page
        self.hollow = False  # the first page of a delta is empty and has a nextLink, which the API allows
        self.brief = False  # a delta gives only the ids of mails
        self.foreign = ""  # the host in links, if not this one
        self._ids, self._hours = itertools.count(1), itertools.count(1)

    def put(self, raw: bytes, folder: str = "inbox", *, at: datetime | None = None, draft: bool = False) -> str:
        """Adds a mail; returns its immutable id."""
        id = f"AAMkADNk{next(self._ids)}=="
        when = at or datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=next(self._hours))
        self.mails[id] = Mail(id, raw, f"AQMk-{folder}", when, when, draft=draft)
        self._changed(id)
        return id

    def received(self, id: str) -> datetime:
        return self.mails[id].at

    @staticmethod
    def download(id: str) -> str:
        """In the path of the request for the mail's bytes."""
        return f"{id}/$value"

    def mark_read(self, id: str) -> None:
        self.mails[id].read = True
        self._changed(id)

    def move(self, id: str, folder: str) -> None:
        self._changed(id)
        self.mails[id].folder, self.mails[id].modified = f"AQMk-{folder}", datetime.now(UTC)
        self._changed(id)

    def delete(self, id: str) -> None:
        self._changed(id)
        del self.mails[id]

    def expire(self) -> None:
        """Expires every delta token so far."""
        self.oldest = len(self.changes) + 1
        self.changes.append(("", ""))

    def _told(self, asked: Asked) -> Said:
        path = asked.path.removeprefix(BASE)
        for pattern, told in ROUTES:
            if match := re.fullmatch(pattern, path):
                return told(self, match, asked)
        return NOT_FOUND

    def _shown(self, id: str) -> Said:
        return Said(200, _shown(self.mails[id])) if id in self.mails else NOT_FOUND

    def _value(self, id: str) -> Said:
        mail = self.mails.get(id)
        return Said(200, mail.raw, {"Content-Type": "text/plain"}) if mail else NOT_FOUND

    def _folder(self, name: str) -> str | None:
        known = f"AQMk-{name.lower()}" if name.lower() in WELL_KNOWN else name
        return known if known in self.folders else None

    def _about(self, name: str) -> Said:
        id = self._folder(name)
        return Said(200, self._described(id)) if id else NOT_FOUND

    def _described(self, id: str) -> dict[str, Any]:
        total = sum(mail.folder == id for mail in self.mails.values())
        below = len(BELOW.get(id, {}))
        return {"id": id, "displayName": self.folders[id], "totalItemCount": total, "childFolderCount": below}

    def _list_folders(self, ids: Sequence[str], path: str, asked: Asked) -> Said:
        first, size = int(asked.one("$skip") or 0), min(int(asked.one("$top") or 10), self.page)
        described = [self._described(id) for id in ids]
        said: dict[str, Any] = {"value": described[first : first + size]}
        if len(described) > first + size:
            said["@odata.nextLink"] = f"{self._origin}{BASE}{path}?$top={size}&$skip={first + size}"
        return Said(200, said)

    @property
    def _origin(self) -> str:
        return self.foreign or self.url

    def _list(self, name: str, asked: Asked) -> Said:
        folder = self._folder(name)
        if folder is None:
            return NOT_FOUND
        found = [mail for mail in self.mails.values() if mail.folder == folder]
        for clause in filter(None, (asked.one("$filter") or "").split(" and ")):
            match = re.fullmatch(r"receivedDateTime (ge|le|lt|gt) (\S+Z)", clause)
            if match is None:
                return BAD_REQUEST
            when = datetime.fromisoformat(match[2])
            test = {"ge": datetime.__ge__, "le": datetime.__le__, "lt": datetime.__lt__, "gt": datetime.__gt__}[match[1]]
            found = [mail for mail in found if test(mail.at, when)]
        if asked.one("$orderby") == "receivedDateTime desc":
            found.sort(key=lambda mail: mail.at, reverse=True)
        size, first = min(int(asked.one("$top") or 10), self.page), int(asked.one("$skip") or 0)
        said: dict[str, Any] = {"value": [_shown(mail) for mail in found[first : first + size]]}
        if len(found) > first + size:
            kept = "".join(f"{name}={asked.one(name)}&" for name in ("$filter", "$orderby", "$top") if asked.one(name))
            path = f"{BASE}/mailFolders/{folder}/messages"
            said["@odata.nextLink"] = f"{self._origin}{path}?{kept}$skip={first + size}".replace(" ", "%20")
        return Said(200, said)

    def _delta(self, name: str, asked: Asked) -> Said:
        """A token is `from.until.offset`: a round lists all changes in between, one entry per mail."""
        folder = self._folder(name)
        if folder is None:
            return NOT_FOUND
        token = asked.one("$skiptoken") or asked.one("$deltatoken")
        start, until, offset = map(int, token.split(".")) if token else (-1, -1, 0)
        if token and start < self.oldest and start != -1:
            return GONE
        until = len(self.changes) if until < 0 else until
        ids = list(dict.fromkeys(id for where, id in self.changes[max(start, 0) : until] if where == folder))
        entries = [self._entry(id, folder) for id in ids if start >= 0 or self._is_in(id, folder)]
        said: dict[str, Any] = {"@odata.context": f"{self.url}/v1.0/$metadata#Collection(message)"}
        path = f"{self._origin}{BASE}/mailfolders('{folder}')/messages/delta"
        if self.hollow and asked.one("$skiptoken") is None:
            return Said(200, said | {"@odata.nextLink": f"{path}?$skiptoken={start}.{until}.0", "value": []})
        size = min(self.page, int(re.sub(r".*odata.maxpagesize=(\d+).*", r"\1", _prefer(asked)) or 10))
        said["value"] = entries[offset : offset + size]
        if len(entries) > offset + size:
            said["@odata.nextLink"] = f"{path}?$skiptoken={start}.{until}.{offset + size}"
        else:
            said["@odata.deltaLink"] = f"{path}?$deltatoken={until}.-1.0"
        return Said(200, said)

    def _is_in(self, id: str, folder: str) -> bool:
        return id in self.mails and self.mails[id].folder == folder

    def _entry(self, id: str, folder: str) -> dict[str, Any]:
        if self._is_in(id, folder):
            return {"@odata.type": MESSAGE, "id": id} if self.brief else _shown(self.mails[id])
        return {"@odata.type": MESSAGE, "id": id, "@removed": {"reason": "deleted"}}

    def _changed(self, id: str) -> None:
        self.changes.append((self.mails[id].folder, id))


def _shown(mail: Mail) -> dict[str, Any]:
    times = {"receivedDateTime": mail.at, "lastModifiedDateTime": mail.modified}
    about = {"@odata.type": MESSAGE, "@odata.etag": f'W/"CQAAABYAAA{mail.id}"', "isRead": mail.read, "isDraft": mail.draft}
    return about | {name: time.strftime("%Y-%m-%dT%H:%M:%SZ") for name, time in times.items()} | {"id": mail.id}


def _prefer(asked: Asked) -> str:
    """The Prefer header, and a page size if none was preferred. Fails without ImmutableId: other ids change when mails move."""
    given = asked.headers.get("Prefer", "")
    assert 'IdType="ImmutableId"' in given
    return given if "odata.maxpagesize" in given else "odata.maxpagesize=10"


def _refusal(kind: str) -> Mapping[str, Any]:
    trace = {"trace_id": "t", "correlation_id": "c", "timestamp": "2026-11-20 10:00:00Z"}
    told = {
        "invalid_grant": ("AADSTS50173: The provided grant has expired due to it being revoked.", [50173]),
        "interaction_required": ("AADSTS50076: You must use multi-factor authentication to access this.", [50076]),
        "invalid_client": ("AADSTS7000215: Invalid client secret provided.", [7000215]),
    }
    description, codes = told[kind]
    return {"error": kind, "error_description": description, "error_codes": codes, **trace}


FOLDER = r"/mail[fF]olders(?:/(?P<plain>[^/]+)|\('(?P<quoted>[^']+)'\))"
ROUTES: tuple[tuple[str, Callable[[Graph, re.Match[str], Asked], Said]], ...] = (
    ("/mailFolders", lambda graph, match, asked: graph._list_folders([*TOP], match[0], asked)),
    ("/mailFolders/([^/]+)/childFolders", lambda graph, match, asked: graph._list_folders([*BELOW[match[1]]], match[0], asked)),
    (FOLDER, lambda graph, match, _: graph._about(match["plain"] or match["quoted"])),
    (f"{FOLDER}/messages/delta", lambda graph, match, asked: graph._delta(match["plain"] or match["quoted"], asked)),
    (f"{FOLDER}/messages", lambda graph, match, asked: graph._list(match["plain"], asked)),
    (rf"{FOLDER}/messages/[^/]+/\$value", lambda *_: NOT_SUPPORTED),
    (r"/messages/([^/]+)", lambda graph, match, _: graph._shown(match[1])),
    (r"/messages/([^/]+)/\$value", lambda graph, match, _: graph._value(match[1])),
)

INTERACTION_REQUIRED = Said(400, _refusal("interaction_required"))
