"""A tenant's published log: its files at a place, in the layout of C2SP tlog-tiles."""

from collections.abc import Iterable
from typing import Final

from ops.runtime.places import Place
from pipeline.ledger.tiles import CHECKPOINT
from schemas.ledger.log_names import log_folder

AT_ONCE: Final = 32  # files in one call
BYTES: Final = 4 * 1024 * 1024  # in one call, unless a single file has more


class PublishedLog:
    """The files of one incarnation of a tenant's log. Raises `PlaceAway`."""

    def __init__(self, place: Place, tenant: str, incarnation: int) -> None:
        self._place = place
        self._folder = log_folder(tenant, incarnation)

    def checkpoint(self) -> bytes | None:
        """The newest checkpoint; None if there is none."""
        return self._place.read(f"{self._folder}/{CHECKPOINT}")

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self._place.written_at(f"{self._folder}/{path}") is not None

    def read(self, path: str) -> bytes:
        """A tile or a bundle. Raises `FileNotFoundError`."""
        content = self._place.read(f"{self._folder}/{path}")
        if content is None:
            raise FileNotFoundError(path)
        return content

    def write(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files beside the checkpoint, which are durable when this returns; in little memory, whatever their number."""
        waiting: dict[str, bytes] = {}
        size = 0
        for path, content in files:
            if waiting and (len(waiting) == AT_ONCE or size + len(content) > BYTES):
                self._place.write(waiting)
                waiting, size = {}, 0
            waiting[f"{self._folder}/{path}"] = content
            size += len(content)
        if waiting:
            self._place.write(waiting)

    def publish(self, note: str) -> None:
        """Make a checkpoint the newest. All files of its size must have been written before."""
        self._place.write({f"{self._folder}/{CHECKPOINT}": note.encode()})

    def delete(self, folders: Iterable[str]) -> None:
        """Delete folders of incomplete tiles that full ones have replaced."""
        for folder in folders:
            self._place.delete(f"{self._folder}/{folder}")
