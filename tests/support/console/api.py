"""A client of the API, as programs are."""

import http.client
import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

_keys = itertools.count()


@dataclass
class Said:
    """An answer."""

    status: int
    headers: dict[str, str]
    raw: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Api:
    """Asks with a token. Each act gets an Idempotency-Key of its own, unless one is given."""

    def __init__(self, url: str, token: str | None) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self._token = token

    def get(self, path: str, /, **query: Any) -> Said:
        return self.ask("GET", path, query=query)

    def post(self, path: str, body: Any = None, /, key: str | None = None, **query: Any) -> Said:
        return self.ask("POST", path, body, query=query, headers={"Idempotency-Key": key or f"key-{next(_keys)}"})

    def ask(self, method: str, path: str, body: Any = None, *, query: Any = None, headers: Any = None) -> Said:
        """`body` is JSON, unless it is bytes, of which the headers say the type."""
        sent = {**({"Authorization": f"Bearer {self._token}"} if self._token else {}), **(headers or {})}
        raw = body
        if body is not None and not isinstance(body, bytes):
            raw = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        target = f"/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        self._connection.request(method, target, raw, sent)
        answer = self._connection.getresponse()
        said = Said(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        self._connection.close()  # the server ends one that is idle
        return said

    def all_of(self, path: str, /, **query: Any) -> list[Any]:
        """The rows of all pages."""
        rows, more = [], dict(query)
        while True:
            answer = self.get(path, **more)
            assert answer.status == 200, answer.raw
            rows += answer.json["data"]
            if (following := answer.json["next"]) is None:
                return rows
            assert 'rel="next"' in answer.headers["link"]
            more["cursor"] = following
