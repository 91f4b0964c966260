"""Renders templates in a child process, which is killed when it takes too long and started again when needed."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
import psutil

from ops.settings import environment
from pipeline.delivery.template import Unrenderable

SECONDS: Final = 3.0  # of CPU for one mail, including the start of the process
PATIENCE: Final = 30.0  # seconds of wall time for one mail, however busy the machine is
LOOK: Final = 0.2  # seconds between two checks of its CPU time
BARRED_SECONDS: Final = 60.0  # for which templates that took longer are not rendered: others wait for the same process
_PASSED_ON: Final = ("PATH", "LANG", "LD_LIBRARY_PATH")
_COMMAND: Final = (sys.executable, "-I", "-m", "workers.transports.template_child")

_Templates = tuple[str, ...]


class Renderer:
    """Renders one mail after the other, from construction to `close`, on one event loop."""

    def __init__(self) -> None:
        self._child: psutil.Popen | None = None
        self._lock = asyncio.Lock()
        self._barred: dict[_Templates, float] = {}  # until when

    async def render(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Render the order's templates. Raises `Unrenderable`, also when they take more than three seconds of CPU."""
        templates = tuple(order["templates"].values())
        async with self._lock:
            self._barred = {each: until for each, until in self._barred.items() if until > asyncio.get_running_loop().time()}
            if templates in self._barred:
                raise Unrenderable(f"took more than {SECONDS:g} s a moment ago")
            answer = await self._asked(templates, orjson.dumps(order) + b"\n")
        if "error" in answer:
            raise Unrenderable(answer["error"])
        return answer

    async def _asked(self, templates: _Templates, line: bytes) -> dict[str, str]:
        child = self._child = self._child or _start()
        try:
            answer: dict[str, str] = orjson.loads(await _answered(child, line))
        except TimeoutError:
            self._barred[templates] = asyncio.get_running_loop().time() + BARRED_SECONDS
            self.close()
            raise Unrenderable(f"takes more than {SECONDS:g} s") from None
        except (OSError, ValueError) as error:
            self.close()
            raise Unrenderable(f"the process that renders ended: {error}") from None
        except BaseException:  # cancelled: the answer must not be read as the next order's
            self.close()
            raise
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):
                    pipe.close()


async def _answered(child: psutil.Popen, line: bytes) -> bytes:
    """The child's answer. CPU time is limited, because a busy machine is not the template's fault. Raises `TimeoutError`."""
    before, deadline = _cpu(child), asyncio.get_running_loop().time() + PATIENCE
    asked = asyncio.ensure_future(asyncio.to_thread(_ask, child, line))
    while not (await asyncio.wait({asked}, timeout=LOOK))[0]:
        if _cpu(child) - before > SECONDS or asyncio.get_running_loop().time() > deadline:
            asked.cancel()
            raise TimeoutError
    return asked.result()


def _cpu(child: psutil.Popen) -> float:
    with suppress(psutil.Error):
        used = child.cpu_times()
        return float(used.user + used.system)
    return 0.0  # the child has ended, so the read returns


def _start() -> psutil.Popen:
    kept = {name: value for name, value in environment().items() if name in _PASSED_ON}
    return psutil.Popen(_COMMAND, env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _ask(child: psutil.Popen, line: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line)
    child.stdin.flush()
    answer: bytes = child.stdout.readline()
    return answer
