"""The choice of folders to listen to: each takes a connection, which are limited in every server and in this process."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

from pipeline.store.mail.mailbox_overview import Listened

FOLDERS: Final = 4  # of each mailbox; a fifth connection pulls it
FEWER_SECONDS: Final = 3600.0  # for which a mailbox has fewer connections, if its server may limit them

Key = tuple[int, str]
"""A mailbox's id, and a folder."""


class Choice:
    """Chooses the first `folders` of each mailbox, at most `most` in all: every mailbox's first folder before any second."""

    def __init__(self, folders: int = FOLDERS, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._most = most
        self._clock = clock
        self._fewer: dict[int, tuple[int, float]] = {}  # by mailbox: how many folders, and until when

    def of(self, found: Sequence[Listened], lacking: Set[Key]) -> Mapping[Key, str]:
        """The chosen folders, with their mailbox's digest. A `lacking` folder stays chosen and does not count."""
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
        """Limits the mailbox to so many folders, but at least one, for `FEWER_SECONDS`."""
        self._fewer[mailbox_id] = (max(folders, 1), self._clock() + FEWER_SECONDS)

    def _limit(self, mailbox_id: int) -> int:
        limit, until = self._fewer.get(mailbox_id, (self._folders, 0.0))
        if until > self._clock():
            return min(limit, self._folders)
        self._fewer.pop(mailbox_id, None)
        return self._folders
