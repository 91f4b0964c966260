"""Takes blobs away that nobody refers to: what was put for a message that was never published, or content that is gone.

In two steps, each when the blob has lain untouched for an age. First it is set aside, where whoever misses it still finds it,
and whoever is about to refer to it puts it back (`Blobs.hold`). When it has lain there as long again, it is deleted. So what
is deleted has been put by nobody for twice the age, and a message must have been under way for longer to miss its body.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Engine

from ops.admin.bulk import Act, noted
from ops.admin.read_session import snapshot
from ops.runtime.blobs import Blobs, KeptBlob
from pipeline.store.admin.blob_references import referred

PAGE = 500  # that Postgres is asked about at once


@dataclass(frozen=True, slots=True)
class Orphans:
    """What nobody refers to and nobody has put since `before`: still in its place, or aside for as long as that."""

    before: datetime
    fresh: Sequence[KeptBlob]
    aside: Sequence[KeptBlob]

    def __len__(self) -> int:
        return len(self.fresh) + len(self.aside)


def find(engine: Engine, blobs: Blobs, before: datetime) -> Orphans:
    """Looks at every blob; changes nothing but this: what was set aside and is referred to is put back."""
    aside = [kept for kept in blobs.stored(aside=True) if kept.put_at < before]
    orphans = list(_unreferred(engine, aside))
    for kept in set(aside) - set(orphans):
        blobs.put_back(kept)
    fresh = (kept for kept in blobs.stored() if kept.put_at < before)
    return Orphans(before, list(_unreferred(engine, fresh)), orphans)


def collect(engine: Engine, blobs: Blobs, act: Act, orphans: Orphans, show: Callable[[int], None]) -> int:
    """Deletes what was aside, sets the others aside, asking again about each; how many."""
    with noted(engine, act, len(orphans)) as tally:
        for found, take in ((orphans.aside, blobs.discard), (orphans.fresh, blobs.set_aside)):
            for kept in _unreferred(engine, found):
                if (now := blobs.look(kept)) is not None and now.put_at < orphans.before:
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
