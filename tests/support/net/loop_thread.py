"""An event loop in a thread of its own, for servers that answer while the test waits."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs until `stop`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs `work` in the loop; returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self, server: asyncio.Server | None = None) -> None:
        """Closes the server, and ends the connections, the loop and the thread."""
        self.do(close(server))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


async def close(server: asyncio.Server | None) -> None:
    """Closes the server, and cancels every other task of the loop, as are those of its connections."""
    if server is not None:
        server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
