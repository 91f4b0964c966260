"""Which folders are listened to: each takes a connection, and neither a server nor this process has any number of them."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

from pipeline.store.mail.mailbox_overview import Listened

FOLDERS: Final = 4  # of a mailbox; a fifth connection pulls it
FEWER_SECONDS: Final = 3600.0  # for which a mailbox has fewer connections, after the server had too many of them

Key = tuple[int, str]
"""A mailbox's id, and a folder."""


class Choice:
    """The first `folders` of each mailbox, `most` of all mailboxes together: every mailbox's first folder before any second."""

    def __init__(self, folders: int = FOLDERS, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._most = most
        self._clock = clock
        self._fewer: dict[int, tuple[int, float]] = {}  # by mailbox: how many folders, and until when

    def of(self, found: Sequence[Listened], lacking: Set[Key]) -> Mapping[Key, str]:
        """The chosen folders, with their mailbox's digest. One that is `lacking` takes no other's place."""
        ranked: list[tuple[int, int, Key, str]] = []
        for mailbox in found:
            limit, rank = self._limit(mailbox.id), 0
            for folder in mailbox.folders:
                key = (mailbox.id, folder)
                if key in lacking or rank < limit:
                    ranked.append((rank, mailbox.id, key, mailbox.digest))
                rank += key not in lacking
        return {key: digest for _, _, key, digest in sorted(ranked)[: self._most]}

    def fewer(self, mailbox_id: int, folders: int) -> None:
        """So many of the mailbox and no more, for a while; at least one."""
        self._fewer[mailbox_id] = (max(folders, 1), self._clock() + FEWER_SECONDS)

    def _limit(self, mailbox_id: int) -> int:
        limit, until = self._fewer.get(mailbox_id, (self._folders, 0.0))
        if until > self._clock():
            return min(limit, self._folders)
        self._fewer.pop(mailbox_id, None)
        return self._folders
