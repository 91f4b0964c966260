"""Forwards TCP connections as a long line would: what goes in at one end comes out at the other later, in its order."""

import asyncio
import selectors
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

_CHUNK: Final = 64 * 1024
_UNDERWAY: Final = 1024  # chunks on the line in one direction; a sender waits when there are more


async def forward(port: int, to_port: int, seconds: float) -> None:
    """Forward what connects to `port` of the loopback address to `to_port` there, `seconds` later each way, until cancelled."""

    async def connected(near: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            far, requests = await asyncio.open_connection("127.0.0.1", to_port)
        except OSError:
            answers.close()
            return
        try:
            await _ends(_line(near, requests, seconds), _line(far, answers, seconds))
        finally:
            answers.close()
            requests.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port) as server:
        await server.serve_forever()


async def _ends(*lines: Awaitable[None]) -> None:
    with suppress(OSError):
        await asyncio.gather(*lines)


async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    underway: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDERWAY)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_arrive(underway, writer))
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK)
            except OSError:
                chunk = b""
            await underway.put((time.monotonic() + seconds, chunk))


async def _arrive(underway: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    """Write each chunk when it is due; an empty one is the end of the stream."""
    chunk = b"-"
    while chunk:
        due, chunk = await underway.get()
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        with suppress(OSError):
            if chunk:
                writer.write(chunk)
                await writer.drain()
            else:
                writer.write_eof()


async def _all(seconds: float, ports: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for pair in ports:
            port, _, to_port = pair.partition(":")
            tasks.create_task(forward(int(port), int(to_port), seconds))


def _exact() -> asyncio.AbstractEventLoop:
    """A loop whose timers are exact to microseconds; those of epoll are late by a millisecond, half of a short line's delay."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_exact) as runner:
        runner.run(_all(float(sys.argv[1]), sys.argv[2:]))
