"""Asks the console's application without a server: all requests by one client and in one event loop."""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter
from schemathesis.python.asgi import ASGIClient
from starlette.types import ASGIApp, Message


class InProcess(ASGIClient):
    """The session of `case.call`. Schemathesis's own begins a client for each request, and goes to a thread and back for it."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.trust_env = False  # reading the variables of proxies takes longer than most answers
        self._direct = _Direct(app)
        self.mount("http://", self._direct)

    def close(self) -> None:
        self._direct.end()
        super().close()


class _Direct(BaseAdapter):
    """One task answers all: the threads that anyio starts for a task end with it."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._asked: asyncio.Queue[tuple[requests.PreparedRequest, asyncio.Future[list[Message]]]] = asyncio.Queue()
        self._answering = self.loop.create_task(self._answer_all(app))

    async def _answer_all(self, app: ASGIApp) -> None:
        while True:
            request, answered = await self._asked.get()
            try:
                answered.set_result(await _answered(app, request))
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                answered.set_exception(error)

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        answered: asyncio.Future[list[Message]] = self.loop.create_future()
        self._asked.put_nowait((request, answered))
        start, *parts = self.loop.run_until_complete(answered)
        content = b"".join(each.get("body", b"") for each in parts)
        headers = urllib3.HTTPHeaderDict()
        for name, value in start["headers"]:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
        reason = HTTPStatus(start["status"]).phrase
        answer = requests.Response()
        answer.raw = urllib3.HTTPResponse(BytesIO(content), headers, start["status"], 11, reason=reason, preload_content=False)
        answer.status_code, answer.reason = start["status"], reason
        answer.headers.update(headers)
        answer.encoding = "utf-8"
        answer.url, answer.request = str(request.url), request
        return answer

    def close(self) -> None:
        """The session ends the loop."""

    def end(self) -> None:
        self._answering.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self._answering)
        self.loop.close()


async def _answered(app: ASGIApp, request: requests.PreparedRequest) -> list[Message]:
    """The messages of one answer."""
    body = request.body or b""
    sent: list[Message] = [{"type": "http.request", "body": body.encode() if isinstance(body, str) else body}]
    said: list[Message] = []

    async def receive() -> Message:
        if not sent:  # who waits for the client to go away does so until the answer is complete
            await asyncio.Event().wait()
        return sent.pop()

    async def send(message: Message) -> None:
        said.append(message)

    await app(_scope(request), receive, send)
    return said


def _scope(request: requests.PreparedRequest) -> dict[str, Any]:
    url = urlsplit(str(request.url))
    pairs = ((name.lower().encode(), value) for name, value in request.headers.items())
    headers = [(name, value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in pairs]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "path": unquote(url.path),
        "raw_path": url.path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": url.query.encode(),
        "headers": [(b"host", url.netloc.encode()), *headers],
        "client": ("127.0.0.1", 50_000),
        "server": (url.hostname, url.port or 80),
        "state": {},
    }
