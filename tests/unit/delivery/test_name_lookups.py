"""Names whose servers do not answer keep nobody else waiting."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence

from workers.net import dial
from workers.net.dial import AddressInfo, Dialler

DEAD = [f"x{number}.dead.example" for number in range(40)]
FOUND: list[AddressInfo] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


def test_names_whose_servers_do_not_answer_keep_nobody_else_waiting(monkeypatch) -> None:
    monkeypatch.setattr(dial, "LOOKUPS_AT_ONCE", 20)
    monkeypatch.setattr(dial, "SLOW", 0.05)
    over, hanging = threading.Event(), threading.Event()

    def look_up(host: str, *_options: object) -> Sequence[AddressInfo]:
        if host in DEAD:
            over.wait(60) if hanging.is_set() else time.sleep(0.06)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return FOUND

    async def run() -> list[AddressInfo]:
        dialler = Dialler(None, look_up)
        await asyncio.gather(*(dialler.find(each, 80) for each in DEAD), return_exceptions=True)
        hanging.set()
        waiting = [asyncio.create_task(dialler.find(each, 80)) for each in DEAD]
        try:
            return await asyncio.wait_for(dialler.find("h.alive.example", 80), 10)
        finally:
            over.set()
            await asyncio.gather(*waiting, return_exceptions=True)
            await dialler.close()

    assert FOUND == asyncio.run(run())
