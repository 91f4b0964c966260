"""Gmail's API and Google's token endpoint, answering as Google documents it."""

import base64
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from support.mail.api import Asked, Fake, Said, Tokens

BASE = "/gmail/v1/users/me"
UNITS = {"messages.get": 20, "messages.list": 5, "history.list": 2, "profile": 1}
KEYS = {"messageAdded": "messagesAdded", "labelAdded": "labelsAdded", "labelRemoved": "labelsRemoved"}
INVALID_GRANT = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}


def error(code: int, reason: str, message: str, status: str | None = None, domain: str = "global") -> Said:
    said: dict[str, Any] = {"code": code, "message": message}
    said["errors"] = [{"message": message, "domain": domain, "reason": reason}]
    return Said(code, {"error": said | ({"status": status} if status else {})})


NOT_FOUND = error(404, "notFound", "Requested entity was not found.", "NOT_FOUND")
RATE_LIMITED = error(429, "rateLimitExceeded", "Rate Limit Exceeded", domain="usageLimits")
USER_RATE_LIMITED = error(403, "userRateLimitExceeded", "User-rate limit exceeded.", domain="usageLimits")
FORBIDDEN = error(403, "insufficientPermissions", "Request had insufficient authentication scopes.", "PERMISSION_DENIED")
BACKEND_ERROR = error(500, "backendError", "Backend Error")
UNAVAILABLE = error(503, "backendError", "The service is currently unavailable.", "UNAVAILABLE")
_AT_FAULT = {"domain": "global", "reason": "authError", "locationType": "header", "location": "Authorization"}
_INVALID = {"code": 401, "message": "Invalid Credentials"}
UNAUTHORIZED = Said(401, {"error": _INVALID | {"errors": [_AT_FAULT | {"message": "Invalid Credentials"}]}})
BAD_PAGE = error(400, "invalidArgument", "Invalid pageToken", "INVALID_ARGUMENT")


@dataclass
class Mail:
    id: str
    raw: bytes
    labels: tuple[str, ...]
    at: int  # milliseconds since 1970
    history: int

    @property
    def brief(self) -> dict[str, str]:
        return {"id": self.id, "threadId": self.id}


class Gmail(Fake):
    """A mailbox with its history. Numbers are strings, as in the API."""

    kind, entrance = "gmail", "/profile"
    failure, unavailable, throttled = BACKEND_ERROR, UNAVAILABLE, USER_RATE_LIMITED

    def __init__(self, **tokens: Any) -> None:
        super().__init__(Tokens(rotates=False, refusal=_refusal, **tokens), self._told, UNAUTHORIZED)
        self.mails: dict[str, Mail] = {}
        self.history: list[dict[str, Any]] = []
        self.at = 1000
        self.oldest = 0  # history before this has expired
        self.page = 500  # most entries in one page
        self.hollow = False  # the first page of a history lacks the key "history", which the API allows
        self._ids, self._hours = itertools.count(1), itertools.count(1)

    def put(self, raw: bytes, *labels: str, at: int | None = None, silent: bool = False, times: int = 1) -> str:
        """Adds a mail; returns its id. The history reports it `times` times; not at all if `silent`."""
        self.at += 3  # history ids increase, but are not contiguous
        id = f"18c{next(self._ids):x}"
        when = 1_730_000_000_000 + next(self._hours) * 3_600_000 if at is None else at
        self.mails[id] = Mail(id, raw, labels or ("INBOX", "UNREAD"), when, self.at)
        if not silent:
            self._note("messagesAdded", id, times)
        return id

    def received(self, id: str) -> datetime:
        return datetime.fromtimestamp(self.mails[id].at / 1000, UTC)

    @staticmethod
    def download(id: str) -> str:
        """In the path of the request for the mail's bytes."""
        return f"/messages/{id}"

    def label(self, id: str, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
        mail = self.mails[id]
        self.at += 3
        mail.labels = tuple(each for each in (*mail.labels, *add) if each not in remove)
        for key, changed in (("labelsAdded", add), ("labelsRemoved", remove)):
            if changed:
                self._note(key, id, labelIds=list(changed))

    def delete(self, id: str) -> None:
        mail = self.mails.pop(id)
        self.at += 3
        record = {"messagesDeleted": [{"message": {**mail.brief, "labelIds": list(mail.labels)}}]}
        self.history.append({"id": str(self.at), "messages": [mail.brief], **record})

    def forget_history(self) -> None:
        """Expires the history so far. The API documents ids as "typically valid for at least a week", so not always."""
        self.at += 3
        self.oldest = self.at

    def _told(self, asked: Asked) -> Said:
        path = asked.path.removeprefix(BASE)
        if path == "/profile":
            total = len(self.mails)
            about = {"emailAddress": "u@x.org", "messagesTotal": total, "threadsTotal": total, "historyId": str(self.at)}
            return Said(200, about)
        if path == "/messages":
            return self._list(asked)
        if path == "/history":
            return self._history(asked)
        if path.startswith("/labels/"):
            label = path.removeprefix("/labels/")
            total = sum(label in mail.labels for mail in self.mails.values())
            return Said(200, {"id": label, "name": label, "type": "system", "messagesTotal": total, "messagesUnread": 0})
        if path.startswith("/messages/"):
            return self._get(path.removeprefix("/messages/"), asked)
        return NOT_FOUND

    def units(self) -> int:
        """The cost of all requests, in Google's quota units."""
        return sum(_units(asked.path.removeprefix(BASE)) for asked in self.asked if asked.path.startswith(BASE))

    def _note(self, key: str, id: str, times: int = 1, **more: Any) -> None:
        mail = self.mails[id]
        entry = {"message": {**mail.brief, "labelIds": list(mail.labels)}, **more}
        self.history.append({"id": str(self.at), "messages": [mail.brief], key: [entry] * times})

    def _list(self, asked: Asked) -> Said:
        labels, junk = asked.query.get("labelIds", []), asked.one("includeSpamTrash") == "true"
        after = int((asked.one("q") or "after:0").removeprefix("after:")) * 1000
        found = [
            mail
            for mail in sorted(self.mails.values(), key=lambda mail: -mail.at)
            if all(label in mail.labels for label in labels)
            and (junk or not {"SPAM", "TRASH"} & set(mail.labels))
            and mail.at >= after
        ]
        size, start = min(int(asked.one("maxResults") or 100), self.page, 500), 0
        if token := asked.one("pageToken"):
            start = next((n for n, mail in enumerate(found) if f"{mail.at}-{mail.id}" == token), -1)
            if start < 0:
                return BAD_PAGE
        page, rest = found[start : start + size], found[start + size :]
        said: dict[str, Any] = {"messages": [mail.brief for mail in page]} if page else {}
        if rest:
            said["nextPageToken"] = f"{rest[0].at}-{rest[0].id}"
        return Said(200, said | {"resultSizeEstimate": len(found)})

    def _history(self, asked: Asked) -> Said:
        start = int(asked.one("startHistoryId") or -1)
        if start < self.oldest:
            return NOT_FOUND
        kinds = {KEYS[kind] for kind in asked.query.get("historyTypes", [])}
        records = [each for each in self.history if int(each["id"]) > start and (not kinds or kinds & set(each))]
        first = 0
        if token := asked.one("pageToken"):
            given, _, position = token.partition("-")
            if given != str(start):
                return BAD_PAGE  # the token belongs to another startHistoryId
            first = int(position)
        size = min(int(asked.one("maxResults") or 100), self.page, 500)
        said: dict[str, Any] = {"historyId": str(self.at)}
        if self.hollow and first == 0 and not asked.one("pageToken") and records:
            return Said(200, said | {"nextPageToken": f"{start}-0"})
        if page := records[first : first + size]:
            said["history"] = page
        if len(records) > first + size:
            said["nextPageToken"] = f"{start}-{first + size}"
        return Said(200, said)

    def _get(self, id: str, asked: Asked) -> Said:
        if (mail := self.mails.get(id)) is None:
            return NOT_FOUND
        about = {**mail.brief, "labelIds": list(mail.labels), "snippet": "..", "historyId": str(mail.history)}
        about |= {"sizeEstimate": len(mail.raw), "internalDate": str(mail.at)}
        if asked.one("format") == "raw":
            about["raw"] = base64.urlsafe_b64encode(mail.raw).decode()
        return Said(200, about)


def _refusal(kind: str) -> Mapping[str, Any]:
    return INVALID_GRANT if kind == "invalid_grant" else {"error": kind, "error_description": "Unauthorized"}


def _units(path: str) -> int:
    if path.startswith("/messages/"):
        return UNITS["messages.get"]
    return UNITS.get({"/messages": "messages.list", "/history": "history.list"}.get(path, path[1:]), 1)
