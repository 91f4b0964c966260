"""The blob store: large bodies, in a folder or in S3, named by their digest, each tenant's apart from the others'.

Order is what makes it safe. A body is durable here before anything refers to it: a message, an entry, a dead letter. Whoever
dies in between leaves a blob that nobody refers to, which `ops.admin.orphan_blobs` takes away much later.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

import obstore
from obstore.store import LocalStore, S3Store

from ops.settings import Settings
from pipeline.errors import BlobLost, BlobsAway
from schemas.blob import LARGEST, LARGEST_INLINE, Blob, is_reference, name

SECONDS: Final = 30.0  # that one call may take
AT_ONCE: Final = 16  # calls; when as many hang, the next fails in its time like them
FRESH: Final = timedelta(hours=1)  # what was put within it is far from the day that a collection waits at least

#: Before the tenants' names, none of which begins with a dot: what was set aside, to be deleted.
ASIDE: Final = ".aside/"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A blob that is there: its key in the store, and when it was last put."""

    key: str
    size: int
    put_at: datetime

    @property
    def tenant(self) -> str:
        """The tenant it is of."""
        return self.key.removeprefix(ASIDE).partition("/")[0]

    @property
    def reference(self) -> str:
        """What refers to it."""
        return f"sha256:{self.key.rpartition('/')[2]}"


def open_blobs(settings: Settings, seconds: float = SECONDS) -> "Blobs":
    """The store that the settings name; nothing is connected to or made yet. `seconds` are those of one call."""
    return Blobs(settings.blobs, seconds)


class Blobs:
    """A blob store. Any thread may call; no call takes longer than the given seconds.

    Raises `BlobsAway` when the store cannot be reached, refuses, or takes too long: the same call may succeed later.
    """

    def __init__(self, place: str, seconds: float = SECONDS) -> None:
        """`place` is a folder or `s3://bucket/prefix`; the credentials of S3 are in the variables that its tools know."""
        self._root = None if place.startswith("s3://") else Path(place).absolute()
        self._seconds = seconds
        self._calls = threading.BoundedSemaphore(AT_ONCE)
        self._store: LocalStore | S3Store | None = None if self._root else _bucket(place, seconds)

    def keep(self, tenant: str, body: bytes) -> bytes | Blob:
        """The body itself when it is small; else what names it, and it is in the store, durably."""
        return body if len(body) <= LARGEST_INLINE else self.put(tenant, body)

    def put(self, tenant: str, body: bytes) -> Blob:
        """Return when the body is in the store, durably. To put it again makes it young again, and mends it."""
        blob = name(body)
        self._within("put", lambda: self._write(_key(tenant, blob.reference), body))
        return blob

    def get(self, tenant: str, reference: str) -> bytes:
        """The body, exactly as it was put. Raises `BlobLost` when it is not there, or anything else is."""
        return self._found(tenant, reference)[0]

    def hold(self, tenant: str, reference: str) -> bytes:
        """The body, as `get` gives it, and sure to stay for a day: for whoever is about to refer to it."""
        body, kept = self._found(tenant, reference)
        if kept.key.startswith(ASIDE) or datetime.now(UTC) - kept.put_at > FRESH:
            self.put(tenant, body)
        return body

    def exists(self, tenant: str, reference: str) -> bool:
        """Whether something is there under that name; only `get` says whether it is the body."""
        key = _key(tenant, reference)
        return self._within("find", lambda: self._head(key) or self._head(ASIDE + key)) is not None

    def stored(self, *, aside: bool = False) -> Iterator[KeptBlob]:
        """Every blob in the store, or every one that was set aside, in no order and without its body; nothing else there is."""
        pages = self._within("list", lambda: iter(obstore.list(self._opened(), ASIDE if aside else None)))
        while (page := self._within("list", lambda: next(pages, None))) is not None:
            kept = (KeptBlob(each["path"], each["size"], each["last_modified"]) for each in page)
            yield from (each for each in kept if each.key.startswith(ASIDE) is aside and _is_ours(each))

    def look(self, kept: KeptBlob) -> KeptBlob | None:
        """How it is now; None when it is gone."""
        return self._within("find", lambda: self._head(kept.key))

    def put_back(self, kept: KeptBlob) -> None:
        """Move what was set aside to its place again, young."""
        self._move(kept, kept.key.removeprefix(ASIDE))

    def set_aside(self, kept: KeptBlob) -> None:
        """Move a blob to where `get` still finds it. It may be put meanwhile: nothing is lost."""
        self._move(kept, ASIDE + kept.key)

    def discard(self, kept: KeptBlob) -> None:
        """Delete it, if it is there."""
        with suppress(FileNotFoundError):
            self._within("delete", lambda: obstore.delete(self._opened(), kept.key))

    def clear_debris(self, before: datetime) -> int:
        """Delete what writers left half written that died before then, if the store is a folder; how many."""
        root = self._root
        return 0 if root is None else self._within("clean", lambda: _clear(root, before))

    def _move(self, kept: KeptBlob, key: str) -> None:
        with suppress(FileNotFoundError):  # somebody else has moved it
            self._within("copy", lambda: self._write(key, self._read(kept.key)[0]))
            self.discard(kept)

    def _found(self, tenant: str, reference: str) -> tuple[bytes, KeptBlob]:
        if not is_reference(reference):
            raise BlobLost("blob_missing", f"{reference:.80} is not the name of a blob")
        key = _key(tenant, reference)
        try:
            body, kept = self._within("get", lambda: self._read(key))
        except FileNotFoundError:
            body, kept = self._set_aside(key, reference)
        if f"sha256:{sha256(body).hexdigest()}" != reference:
            raise BlobLost("blob_altered", f"the blob {reference} holds {kept.size} bytes with another digest")
        return body, kept

    def _set_aside(self, key: str, reference: str) -> tuple[bytes, KeptBlob]:
        try:
            return self._within("get", lambda: self._read(ASIDE + key))
        except FileNotFoundError:
            raise BlobLost("blob_missing", f"the blob {reference} is not in the store") from None

    # What follows runs in a thread of its own, and raises what the store does.

    def _opened(self) -> LocalStore | S3Store:
        if self._store is None:
            assert self._root is not None
            self._store = LocalStore(self._root)
        return self._store

    def _write(self, key: str, body: bytes) -> None:
        if self._root is not None:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        obstore.put(self._opened(), key, body, use_multipart=False)
        if self._root is not None:
            _sync(self._root, key)

    def _read(self, key: str) -> tuple[bytes, KeptBlob]:
        found = obstore.get(self._opened(), key)
        kept = KeptBlob(key, found.meta["size"], found.meta["last_modified"])
        if kept.size > LARGEST:
            raise BlobLost("blob_altered", f"the blob {kept.reference} holds {kept.size} bytes, more than any body")
        return bytes(found.bytes()), kept

    def _head(self, key: str) -> KeptBlob | None:
        try:
            found = obstore.head(self._opened(), key)
        except FileNotFoundError:
            next(obstore.list(self._opened(), key), None)  # unlike this, raises when there is no such bucket
            return None
        return KeptBlob(key, found["size"], found["last_modified"])

    def _check_place(self, error: FileNotFoundError) -> None:
        """A whole store that is not there says nothing of one blob."""
        if "NoSuchBucket" in str(error) or (self._root is not None and not self._root.is_dir()):
            raise BlobsAway(f"the blob store is not there: {_one_line(error)}") from error

    def _within(self, what: str, work: Callable[[], _Result]) -> _Result:
        """What `work` gives, or `BlobsAway` in time: a disk of the network can hang for ever, and nothing can stop it."""
        answer: Future[_Result] = Future()
        if not self._calls.acquire(timeout=self._seconds):
            raise BlobsAway(f"the blob store is busy: {AT_ONCE} calls wait for it")
        threading.Thread(target=self._run, args=(work, answer), name="blobs", daemon=True).start()
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            raise BlobsAway(f"the blob store did not {what} within {self._seconds:.0f} s") from None
        except FileNotFoundError as error:
            self._check_place(error)
            if what == "put":
                raise BlobsAway(f"the blob store cannot put: {_one_line(error)}") from error
            raise
        except (OSError, obstore.exceptions.BaseError) as error:
            raise BlobsAway(f"the blob store cannot {what}: {_one_line(error)}") from error

    def _run(self, work: Callable[[], _Result], answer: Future[_Result]) -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            answer.set_exception(error)
        finally:
            self._calls.release()


def _is_ours(kept: KeptBlob) -> bool:
    return is_reference(kept.reference) and kept.key.removeprefix(ASIDE) == _key(kept.tenant, kept.reference)


def _key(tenant: str, reference: str) -> str:
    digest = reference.removeprefix("sha256:")
    return f"{tenant}/{digest[:2]}/{digest[2:4]}/{digest}"


def _bucket(place: str, seconds: float) -> S3Store:
    return S3Store.from_url(
        place,
        # Only an endpoint that is configured as http:// is spoken to without TLS.
        client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=seconds)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=seconds)},
    )


def _sync(root: Path, key: str) -> None:
    """The file and every folder above it, to the disk: obstore leaves that to whoever relies on it."""
    path = root / key
    while path != root.parent:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        path = path.parent


def _clear(root: Path, before: datetime) -> int:
    """Half written is what is called `name#1`: obstore renames it when it is whole."""
    cleared = 0
    for path in root.rglob("*#*"):
        if path.is_file() and path.stat().st_mtime < before.timestamp():
            path.unlink(missing_ok=True)
            cleared += 1
    return cleared


def _one_line(error: BaseException) -> str:
    """Without the tree of causes that obstore shows below it."""
    return str(error).strip().partition("\n")[0][:300]
