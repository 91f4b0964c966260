"""A browser that asks the console: with cookies, and with the headers that browsers send."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def location(self) -> str:
        """Where it redirects to, absolute."""
        return urljoin(self.url, self.headers["location"])

    @property
    def fields(self) -> dict[str, str]:
        """The hidden fields of its forms."""
        found: dict[str, str] = {}
        for tag in re.findall(r"<input[^>]*>", self.text):
            said = {name: unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
            if said.get("type") == "hidden":
                found[said["name"]] = said["value"]
        return found


class Browser:
    """Asks servers, keeps their cookies by host, and follows no redirect by itself.

    As Chromium does, it sends `Secure` cookies to 127.0.0.1 over http.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.cookies: dict[str, dict[str, str]] = {}

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, None, {"sec-fetch-site": "none", "accept": "text/html", **headers})

    def post(self, path: str, form: Mapping[str, str] | None = None, **headers: str | None) -> Answer:
        """Submits a form of the same site; a header that is None is left out."""
        own = {"sec-fetch-site": "same-origin", "origin": self.base, "content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, urlencode(form or {}), {**own, **headers})

    def log_in(self, token: str) -> str:
        """Logs in by a token; returns what the forms of the session must send back."""
        answer = self.post("/login", {"token": token})
        assert (303, "/") == (answer.status, answer.headers["location"]), answer.text
        return self.get("/settings/sessions").fields["csrf"]

    def api(self, path: str, token: str = "", method: str = "GET", body: Any = None, **headers: str | None) -> Answer:
        """Asks as a program does: without cookies."""
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        sent = None if body is None else json.dumps(body)
        return self.ask(method, path, sent, {**bearer, **headers}, cookies=False)

    def follow(self, answer: Answer, most: int = 10) -> Answer:
        """Where the redirects lead."""
        for _ in range(most):
            if answer.status not in (302, 303, 307):
                return answer
            answer = self.get(answer.location, **{"sec-fetch-site": "cross-site"})
        raise AssertionError("too many redirects")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie of the base's host."""
        return self.cookies.get(urlsplit(self.base).hostname or "", {}).get(name)

    def ask(
        self, method: str, path: str, body: str | None, headers: Mapping[str, str | None], *, cookies: bool = True
    ) -> Answer:
        url = urlsplit(urljoin(self.base, path))
        kept = self.cookies.setdefault(url.hostname or "", {})
        sent = {_header(name): value for name, value in headers.items() if value is not None}
        if cookies and kept and "cookie" not in headers:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in kept.items())
        connection = HTTPConnection(url.hostname or "", url.port, timeout=30)
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request(method, target, None if body is None else body.encode(), sent)
            response = connection.getresponse()
            text = response.read().decode()
            for line in response.headers.get_all("Set-Cookie", []) if cookies else []:
                _keep(kept, line)
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(url.geturl(), response.status, found, text)


def _header(name: str) -> str:
    return name.replace("_", "-").title()


def _keep(kept: dict[str, str], line: str) -> None:
    for name, morsel in SimpleCookie(line).items():
        if morsel["max-age"] == "0" or not morsel.value:
            kept.pop(name, None)
        else:
            kept[name] = morsel.value
