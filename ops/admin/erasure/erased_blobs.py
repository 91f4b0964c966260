"""Deletes the blobs of erased content, unless something still refers to them.

By the steps of `ops.admin.orphan_blobs`: a blob is set aside at once, where whoever is about to refer to it finds it and puts
it back, and deleted when it was there for `AGE`: a message under way may hold the same bytes. The database lists blobs until
then, so whatever dies in between, the next call goes on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from ops.admin.read_session import snapshot
from ops.runtime.blobs import Blobs
from ops.runtime.db import transaction
from pipeline.store.admin.blob_references import referred
from pipeline.store.ledger import erasure
from schemas.ledger.erasure import ErasedBlob

AGE: Final = timedelta(days=1)  # that a blob is set aside before it is deleted
PAGE: Final = 500  # blobs that Postgres is asked about at once


@dataclass(frozen=True, slots=True)
class Swept:
    """How many blobs of erased content were deleted, wait to be deleted, and stay because something refers to them."""

    deleted: int = 0
    waiting: int = 0
    kept: int = 0


def sweep(engine: Engine, blobs: Blobs, now: datetime, age: timedelta = AGE) -> Swept:
    """Looks at every blob of erased content. Raises `BlobsAway` if the store cannot be reached; the next call does the rest."""
    deleted = waiting = kept = 0
    for each in _listed(engine):
        if _is_referred(engine, each):
            _put_back(blobs, each)
            _forget(engine, each)
            kept += 1
        elif _is_deleted(engine, blobs, each, now - age):
            deleted += 1
        else:
            waiting += 1
    return Swept(deleted, waiting, kept)


def _listed(engine: Engine) -> Iterator[ErasedBlob]:
    after = ("", "")
    while True:
        with snapshot(engine) as conn:
            page = erasure.erased_blobs(conn, after, PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = (page[-1].tenant, page[-1].reference)


def _is_referred(engine: Engine, blob: ErasedBlob) -> bool:
    with snapshot(engine) as conn:
        return bool({(blob.tenant, blob.reference), (None, blob.reference)} & referred(conn, {blob.reference}))


def _put_back(blobs: Blobs, blob: ErasedBlob) -> None:
    if (aside := blobs.find(blob.tenant, blob.reference, aside=True)) is not None:
        blobs.put_back(aside)


def _is_deleted(engine: Engine, blobs: Blobs, blob: ErasedBlob, before: datetime) -> bool:
    """Sets the blob aside, or deletes one that was set aside before then; whether it is gone."""
    if (kept := blobs.find(blob.tenant, blob.reference)) is not None:
        blobs.set_aside(kept)
    aside = blobs.find(blob.tenant, blob.reference, aside=True)
    if aside is not None:
        if aside.put_at >= before or _is_referred(engine, blob):
            return False
        blobs.discard(aside)
    _forget(engine, blob)
    return True


def _forget(engine: Engine, blob: ErasedBlob) -> None:
    with transaction(engine) as conn:
        erasure.forget_blob(conn, blob)
