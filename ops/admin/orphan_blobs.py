"""Deletes blobs that nothing refers to: those of messages that were never published, and of content that is gone.

It takes two steps, each after the blob was untouched for the given age. First the blob is set aside, where a reader still
finds it, and where a process about to refer to it puts it back (`Blobs.hold`). After the same time again it is deleted. So
nothing stored a deleted blob for twice the age, and a message must have been under way for longer to miss its body.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Engine

from ops.admin.bulk import Act, noted, uninterrupted
from ops.admin.read_session import snapshot
from ops.runtime.blobs import Blobs, KeptBlob
from pipeline.store.admin.blob_references import referred

PAGE = 500  # blobs that Postgres is asked about at once


@dataclass(frozen=True, slots=True)
class Orphans:
    """Blobs that nothing refers to and that were not stored since `before`: those in place, and those set aside before it."""

    before: datetime
    fresh: Sequence[KeptBlob]
    aside: Sequence[KeptBlob]

    def __len__(self) -> int:
        return len(self.fresh) + len(self.aside)


def find(engine: Engine, blobs: Blobs, before: datetime) -> Orphans:
    """Looks at every blob. Puts back those set aside that something refers to; changes nothing else."""
    aside = [kept for kept in blobs.stored(aside=True) if kept.put_at < before]
    orphans = list(_unreferred(engine, aside))
    for kept in set(aside) - set(orphans):
        blobs.put_back(kept)
    fresh = (kept for kept in blobs.stored() if kept.put_at < before)
    return Orphans(before, list(_unreferred(engine, fresh)), orphans)


def collect(engine: Engine, blobs: Blobs, act: Act, orphans: Orphans, show: Callable[[int], None]) -> int:
    """Deletes those set aside and sets the others aside, checking each again first; returns how many."""
    with noted(engine, act, len(orphans)) as tally:
        for found, take in ((orphans.aside, blobs.discard), (orphans.fresh, blobs.set_aside)):
            for kept in _unreferred(engine, found):
                if (now := blobs.look(kept)) is not None and now.put_at < orphans.before:
                    with uninterrupted():
                        take(now)
                        tally.done += 1
                    show(tally.done)
        blobs.clear_debris(orphans.before)
    return tally.done


def _unreferred(engine: Engine, found: Iterable[KeptBlob]) -> Iterator[KeptBlob]:
    source = iter(found)
    while page := list(islice(source, PAGE)):
        with snapshot(engine) as conn:
            known = referred(conn, {kept.reference for kept in page})
        for kept in page:
            if not {(kept.tenant, kept.reference), (None, kept.reference)} & known:
                yield kept
