"""A process that admits messages: `python -m workers.ingest.admit_child`. Requests and answers use the socket on its stdin.

Its parent or its own timer may kill it in the middle of a message, and nothing is lost: that is its purpose. It holds
no secret, no connection to Postgres or the broker, and a bounded amount of memory.
"""

import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

import orjson

from pipeline.admit import admit
from pipeline.errors import Rejected
from schemas.event import Event

MEMORY: Final = 1536 * 1024 * 1024  # bytes of address space

#: The prefix of a request: its length; and of an answer: the lengths of its JSON and of the bodies that follow.
REQUEST: Final = Struct(">Q")
ANSWER: Final = Struct(">QQ")

READY: Final = b"r"  # sent once, when the process is ready for requests

Answer = tuple[dict[str, Any], list[bytes]]


def main() -> None:
    """Answer requests until the parent closes the socket."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default action ends the process, wherever it is
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as asker:
        asker.sendall(READY)
        while (request := _received(asker)) is not None:
            said, bodies = _answer(*pickle.loads(request))  # noqa: S301 - it is our parent who asks
            raw = orjson.dumps(said)
            asker.sendall(b"".join([ANSWER.pack(len(raw), sum(map(len, bodies))), raw, *bodies]))


def exactly(connection: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes. Raises OSError when the connection ends before."""
    pieces, missing = [], size
    while missing:
        piece = connection.recv(min(missing, 1 << 20))
        if not piece:
            raise ConnectionResetError("the connection ended in the middle of a message")
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _received(asker: socket.socket) -> bytes | None:
    try:
        return exactly(asker, REQUEST.unpack(exactly(asker, REQUEST.size))[0])
    except OSError:
        return None


def _answer(life: float, message: Any, catalog: Any, now: Any) -> Answer:
    signal.setitimer(signal.ITIMER_PROF, life)
    try:
        events = admit(message, catalog, now)
    except Rejected as error:
        return {"rejected": [error.reason, error.detail]}, []
    except Exception as error:  # noqa: BLE001 - whatever it is, this message caused it
        return {"failed": [type(error).__name__, str(error)[:1000]]}, []
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    bodies = [event.body for event in events if event.body is not message.body]
    return {"events": list(_described(events, message.body))}, bodies


def _described(events: list[Event], whole: bytes) -> Iterator[dict[str, Any]]:
    """The events, each with the length of its body; null if that is the whole message's body."""
    for event in events:
        yield {
            "attributes": dict(event.attributes),
            "length": None if event.body is whole else len(event.body),
            "blob": event.blob,
        }


if __name__ == "__main__":
    main()
