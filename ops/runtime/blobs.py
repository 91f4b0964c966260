"""The blob store: large bodies, in a folder or in S3, named by their digest, separate for each tenant.

The order of writes makes it safe. A body is durable here before a message, an entry or a dead letter refers to it. A process
that dies in between leaves a blob without a reference, which `ops.admin.orphan_blobs` deletes much later.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, TypeVar
from uuid import uuid4

import obstore
from obstore.store import LocalStore, S3Store

from ops.runtime.calls_in_time import AT_ONCE, CallsInTime, Late
from ops.runtime.durable_files import flush, make_folders
from ops.settings import Settings
from pipeline.errors import BlobLost, BlobsAway
from schemas.blob import LARGEST, LARGEST_INLINE, Blob, is_reference, name

SECONDS: Final = 30.0  # limit of one call to the store
FRESH: Final = timedelta(hours=1)  # a blob put within this time is safe: orphans are collected after a day at the earliest

#: Prefix of the keys of blobs that are set aside to be deleted. No tenant's name begins with a dot.
ASIDE: Final = ".aside/"
_PROBE: Final = ".probe"  # in place of a tenant

_Result = TypeVar("_Result")


class Called(Protocol):
    """Is told of a call to the store."""

    def __call__(self, operation: str, /, *, answered: bool) -> None:
        """`operation` was asked for, and the store did it, or did not."""


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A blob in the store: its key, its size, and when it was last put."""

    key: str
    size: int
    put_at: datetime

    @property
    def tenant(self) -> str:
        """The tenant that it belongs to."""
        return self.key.removeprefix(ASIDE).partition("/")[0]

    @property
    def reference(self) -> str:
        """The reference by which messages, entries and dead letters name it."""
        return f"sha256:{self.key.rpartition('/')[2]}"


def open_blobs(settings: Settings, seconds: float = SECONDS, called: Called | None = None) -> "Blobs":
    """Open the store that the settings name, without connecting or creating anything yet. `seconds` limits one call."""
    return Blobs(settings.blobs, seconds, called)


class Blobs:
    """A blob store, safe for all threads. Each call to it waits `seconds` at most for one of its slots, and as long to end.

    Raises `BlobsAway` when the store cannot be reached, refuses, or takes too long: the same call may succeed later.
    """

    def __init__(self, place: str, seconds: float = SECONDS, called: Called | None = None) -> None:
        """`place` is a folder or `s3://bucket/prefix`; the credentials of S3 come from the usual AWS_ variables.

        `called` is told of each call, and whether the store answered.
        """
        self._called = called or _nobody
        self._root = None if place.startswith("s3://") else Path(place).absolute()
        self._calls = CallsInTime(seconds, AT_ONCE)
        self._store: LocalStore | S3Store | None = None if self._root else bucket(place, seconds)

    @property
    def folder(self) -> Path | None:
        """The folder that it is; None if it is not one."""
        return self._root

    def keep(self, tenant: str, body: bytes) -> bytes | Blob:
        """Give back a small body as it is; store a larger one durably and return its name."""
        return body if len(body) <= LARGEST_INLINE else self.put(tenant, body)

    def put(self, tenant: str, body: bytes) -> Blob:
        """Store the body durably. Putting it again resets its age, and repairs a blob that was altered."""
        blob = name(body)
        self._within("put", lambda: self._write(key_of(tenant, blob.reference), body))
        return blob

    def get(self, tenant: str, reference: str) -> bytes:
        """The body, exactly as it was put. Raises `BlobLost` when it is missing or altered."""
        return self._found(tenant, reference)[0]

    def hold(self, tenant: str, reference: str) -> bytes:
        """The body, as `get` gives it, kept for at least another day: for a caller that is about to refer to it."""
        body, kept = self._found(tenant, reference)
        if kept.key.startswith(ASIDE) or datetime.now(UTC) - kept.put_at > FRESH:
            self.put(tenant, body)
        return body

    def exists(self, tenant: str, reference: str) -> bool:
        """Whether an object of that name exists; only `get` checks that it is the body."""
        key = key_of(tenant, reference)
        return self._within("find", lambda: self._head(key) or self._head(ASIDE + key)) is not None

    def stored(self, *, aside: bool = False) -> Iterator[KeptBlob]:
        """Every blob in the store, or every one that was set aside, unordered and without bodies; skips other objects."""
        pages = self._within("list", lambda: iter(obstore.list(self._opened(), ASIDE if aside else None)))
        while (page := self._within("list", lambda: next(pages, None))) is not None:
            kept = (KeptBlob(each["path"], each["size"], each["last_modified"]) for each in page)
            yield from (each for each in kept if each.key.startswith(ASIDE) is aside and _is_ours(each))

    def find(self, tenant: str, reference: str, *, aside: bool = False) -> KeptBlob | None:
        """The blob of that name in its place, or where it was set aside; None when it is not there."""
        key = key_of(tenant, reference)
        return self._within("find", lambda: self._head(ASIDE + key if aside else key))

    def look(self, kept: KeptBlob) -> KeptBlob | None:
        """Its current state; None when it is gone."""
        return self._within("find", lambda: self._head(kept.key))

    def put_back(self, kept: KeptBlob) -> None:
        """Move a blob that was set aside back to its place, with its age reset."""
        self._move(kept, kept.key.removeprefix(ASIDE))

    def set_aside(self, kept: KeptBlob) -> None:
        """Move a blob to where `get` still finds it. Nothing is lost if it is put at the same time."""
        self._move(kept, ASIDE + kept.key)

    def discard(self, kept: KeptBlob) -> None:
        """Delete it, if it is there."""
        with suppress(FileNotFoundError):
            self._within("delete", lambda: obstore.delete(self._opened(), kept.key))

    def probe(self) -> None:
        """Store, read and delete a small body, under no tenant. Raises `BlobsAway` or `BlobLost` if the store does not work."""
        body = f"a probe {uuid4()}".encode()
        blob = self.put(_PROBE, body)
        self.get(_PROBE, blob.reference)
        self.discard(KeptBlob(key_of(_PROBE, blob.reference), blob.size, datetime.now(UTC)))

    def clear_debris(self, before: datetime) -> int:
        """Delete incomplete files of writers that died before then, if the store is a folder; returns how many."""
        root = self._root
        return 0 if root is None else self._within("clean", lambda: _clear(root, before))

    def _move(self, kept: KeptBlob, key: str) -> None:
        with suppress(FileNotFoundError):  # another process has moved it
            self._within("copy", lambda: self._write(key, self._read(kept.key)[0]))
            self.discard(kept)

    def _found(self, tenant: str, reference: str) -> tuple[bytes, KeptBlob]:
        if not is_reference(reference):
            raise BlobLost("blob_missing", f"{reference:.80} is not the name of a blob")
        key = key_of(tenant, reference)
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

    # `_opened`, `_write`, `_read` and `_head` run in a thread of their own, and raise the store's errors.

    def _opened(self) -> LocalStore | S3Store:
        if self._store is None:
            assert self._root is not None
            self._store = LocalStore(self._root)
        return self._store

    def _write(self, key: str, body: bytes) -> None:
        if self._root is not None:
            make_folders(self._root, 0o700)
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
            next(obstore.list(self._opened(), key), None)  # unlike `head`, raises when the bucket does not exist
            return None
        return KeptBlob(key, found["size"], found["last_modified"])

    def _check_place(self, error: FileNotFoundError) -> None:
        """Raise `BlobsAway` if the store itself is missing: that does not mean that this blob is lost."""
        if "NoSuchBucket" in str(error) or (self._root is not None and not self._root.is_dir()):
            raise BlobsAway(f"the blob store is not there: {first_line(error)}") from error

    def _within(self, what: str, work: Callable[[], _Result]) -> _Result:
        answered = True
        try:
            return self._in_time(what, work)
        except BlobsAway:
            answered = False
            raise
        finally:
            self._called(what, answered=answered)

    def _in_time(self, what: str, work: Callable[[], _Result]) -> _Result:
        """Run `work` in a thread, or raise `BlobsAway` in time: a network disk can hang for ever, and nothing can stop it."""
        try:
            return self._calls.call(what, work)
        except Late as late:
            raise BlobsAway(f"the blob store {late}") from late
        except FileNotFoundError as error:
            self._check_place(error)
            if what == "put":
                raise BlobsAway(f"the blob store cannot put: {first_line(error)}") from error
            raise
        except (OSError, obstore.exceptions.BaseError) as error:
            raise BlobsAway(f"the blob store cannot {what}: {first_line(error)}") from error


def _nobody(_operation: str, /, *, answered: bool) -> None:
    """Nobody wants to know of a call."""


def _is_ours(kept: KeptBlob) -> bool:
    return is_reference(kept.reference) and kept.key.removeprefix(ASIDE) == key_of(kept.tenant, kept.reference)


def key_of(tenant: str, reference: str) -> str:
    """The key of a tenant's blob: in a folder, its path."""
    digest = reference.removeprefix("sha256:")
    return f"{tenant}/{digest[:2]}/{digest[2:4]}/{digest}"


def bucket(place: str, seconds: float) -> S3Store:
    """The S3 store at `s3://bucket/prefix`, with credentials, region and endpoint from the usual AWS_ variables."""
    return S3Store.from_url(
        place,
        # TLS is left out only for an endpoint that is configured as http://.
        client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=seconds)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=seconds)},
    )


def _sync(root: Path, key: str) -> None:
    """Flush the file and every folder up to the root to disk, because obstore does not."""
    path = root / key
    while path != root.parent:
        flush(path)
        path = path.parent


def _clear(root: Path, before: datetime) -> int:
    """Delete files named like `name#1`: obstore renames a file when it is complete."""
    cleared = 0
    for path in root.rglob("*#*"):
        with suppress(FileNotFoundError):  # its writer has renamed it meanwhile
            if path.is_file() and path.stat().st_mtime < before.timestamp():
                path.unlink()
                cleared += 1
    return cleared


def first_line(error: BaseException) -> str:
    """The first line, without the tree of causes that obstore prints below it."""
    return str(error).strip().partition("\n")[0][:300]
