"""What connections to Postgres call themselves, so that who lists its sessions sees which process each is of."""

import os
import socket
from typing import Final

APPLICATION: Final = "waxseal"
_LONGEST: Final = 63  # bytes, of which Postgres keeps the first


class ConnectionName:
    """`waxseal` alone for commands; for a process also its role, its pid and its host: `waxseal ingest 4242@node-1`."""

    def __init__(self) -> None:
        self.text = APPLICATION

    def of(self, process: str | None) -> None:
        """Name the connections that are made from now on after this process; with None, after no process."""
        role = "" if process is None else f" {process} {os.getpid()}@{socket.gethostname()}"
        self.text = f"{APPLICATION}{role}"[:_LONGEST]


CONNECTION_NAME: Final = ConnectionName()
