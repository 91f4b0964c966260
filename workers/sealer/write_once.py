"""Anchors that are files elsewhere: a folder or an S3 prefix, where a name is written once and never again.

One file for each checkpoint, the note as it was signed; its name ends with the checkpoint's size in 20 digits. Let the place
forbid its writers to delete (S3: object lock, or a policy without DeleteObject; a folder: another machine's, append-only).
"""

from typing import Final

from ops.runtime.places import Place
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import unverified_checkpoint
from pipeline.ledger.judge import Outside
from schemas.ledger.log_names import SIZE_DIGITS, anchor_folder, anchor_name
from workers.sealer.anchor import SECONDS, Contradicted, Known, NotAnchored

_PAGE: Final = 1000  # names in one call


class WriteOnce:
    """An anchor that is a place for files."""

    def __init__(self, where: str, seconds: float = SECONDS) -> None:
        self._place = Place(where, seconds)

    def look(self, known: Known) -> Outside | None:
        """The largest checkpoint there, whoever signed it: what the log's own tables know of it may be old."""
        folder, after = _folder(known), anchor_name(known.anchored - 1) if known.anchored else ""
        newest = ""
        while names := [name for name in self._place.names(folder, after) if name.isdecimal() and len(name) == SIZE_DIGITS]:
            newest = after = names[-1]
            if len(names) < _PAGE:
                break
        return self._read(folder, newest) if newest else None

    def take(self, known: Known) -> tuple[bytes, list[str]]:
        """Write the checkpoint; what is there already has to be of the same tree."""
        checkpoint = known.published
        folder, name = _folder(known), anchor_name(checkpoint.size)
        if not self._place.create(f"{folder}/{name}", known.note.encode()):
            seen = self._read(folder, name)
            if (seen.size, seen.root) != (checkpoint.size, checkpoint.root):
                raise Contradicted(seen)
        return b"", []

    def _read(self, folder: str, name: str) -> Outside:
        raw = self._place.read(f"{folder}/{name}")
        try:
            checkpoint = unverified_checkpoint(raw or b"")
        except Unreadable as error:
            raise NotAnchored(f"{self._place.where} has a file {folder}/{name} that is no checkpoint: {error}") from error
        return Outside(self._place.where, checkpoint.size, checkpoint.root)


def _folder(known: Known) -> str:
    return anchor_folder(known.log.tenant, known.log.incarnation)
