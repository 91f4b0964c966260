"""The blobs in a backup: each under its digest, as in the store, and linked to the backup before if that has it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import file_digest
from itertools import chain
from pathlib import Path

import orjson

from ops.runtime.blobs import Blobs, key_of
from ops.runtime.durable_files import flush, flush_folder, make_folders
from pipeline.errors import BlobLost

Show = Callable[[int], None]


@dataclass
class Copied:
    """What was copied: how many, their bytes, how many of them were linked, and what could not be copied."""

    count: int = 0
    size: int = 0
    linked: int = 0
    faults: list[str] = field(default_factory=list)


def copy_all(source: Blobs, needed: Sequence[tuple[str, str]], target: Path, before: Path | None, show: Show) -> Copied:
    """Copy what is needed, and what else is in the store, to the folder `target`, and list it in `target`.jsonl.

    What is needed and missing, or altered, is a fault; what vanishes meanwhile from the rest of the store is not. A store that
    is a folder need not be there before something is stored.
    """
    make_folders(target, 0o700)
    copied, copies = Copied(), Blobs(str(target))
    unused = not needed and source.folder is not None and not source.folder.exists()
    kept = () if unused else chain(source.stored(), source.stored(aside=True))
    rest = ((each.tenant, each.reference) for each in kept)
    with target.with_suffix(".jsonl").open("wb") as listing:
        for is_needed, (tenant, reference) in chain(((True, each) for each in needed), ((False, each) for each in rest)):
            path = target / key_of(tenant, reference)
            if path.exists():
                continue
            try:
                size = _linked(before, path, target) if before else None
                copied.linked += size is not None
                size = copies.put(tenant, source.get(tenant, reference)).size if size is None else size
            except BlobLost as error:
                if is_needed or error.kind != "blob_missing":
                    copied.faults.append(f"{tenant}: {error}")
                continue
            listing.write(orjson.dumps({"tenant": tenant, "reference": reference, "bytes": size}) + b"\n")
            copied.count, copied.size = copied.count + 1, copied.size + size
            show(copied.count)
    flush(target.with_suffix(".jsonl"))
    return copied


def listed(target: Path) -> Iterator[tuple[str, str]]:
    """The blobs that `copy_all` listed."""
    with target.with_suffix(".jsonl").open("rb") as listing:
        for line in listing:
            row = orjson.loads(line)
            yield row["tenant"], row["reference"]


def faults(target: Path, show: Show) -> Iterator[str]:
    """What is wrong with the blobs that are listed: those that are missing, or have another digest."""
    copies = Blobs(str(target))
    for done, (tenant, reference) in enumerate(listed(target), 1):
        try:
            copies.get(tenant, reference)
        except BlobLost as error:
            yield f"{tenant}: {error}"
        show(done)


def copy_back(target: Path, store: Blobs, show: Show) -> Copied:
    """Put the blobs that are listed into a store, unless it has them; what is missing or altered is a fault."""
    if store.folder is not None:
        make_folders(store.folder, 0o700)
    copied, copies = Copied(), Blobs(str(target))
    for tenant, reference in listed(target):
        try:
            if not store.exists(tenant, reference):
                copied.size += store.put(tenant, copies.get(tenant, reference)).size
            copied.count += 1
        except BlobLost as error:
            copied.faults.append(f"{tenant}: {error}")
        show(copied.count)
    return copied


def _linked(before: Path, path: Path, target: Path) -> int | None:
    """Link the blob of the backup before, if that has it unaltered; gives its size."""
    former = before / path.relative_to(target)
    with suppress(OSError):  # it is not there, or on another file system
        with former.open("rb") as file:
            if file_digest(file, "sha256").hexdigest() != path.name:
                return None
        make_folders(path.parent, 0o700)
        os.link(former, path)
        flush_folder(path.parent)
        return path.stat().st_size
    return None
