"""A place for files that outlive the database: a folder, or a prefix in S3. Names use `/`, and are the same in both.

What a function has written is durable when it returns. Every call ends in time, or raises `PlaceAway`.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Final, Protocol, TypeVar

import obstore
from obstore.store import S3Store

from ops.errors import PlaceAway
from ops.runtime.blobs import bucket, first_line
from ops.runtime.calls_in_time import CallsInTime, Late
from ops.runtime.durable_files import flush, flush_folder, make_folders

SECONDS: Final = 20.0  # limit of one call
LOST: Final = 10.0  # seconds lost in failures, after which a piece of work asks places no more
LARGEST: Final = 32 * 1024 * 1024  # bytes of one file; a full entry bundle has at most 256 of 64 KiB
_S3: Final = "s3://"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)*")

_Result = TypeVar("_Result")


class _Files(Protocol):
    """What a folder and a prefix in S3 can do; they raise the system's errors, `FileExistsError` for what exists."""

    def read(self, name: str) -> bytes: ...

    def written_at(self, name: str) -> datetime: ...

    def write(self, files: Mapping[str, bytes]) -> None: ...

    def create(self, name: str, content: bytes) -> None: ...

    def names(self, folder: str, after: str) -> list[str]: ...

    def delete(self, folder: str) -> None: ...


class Place:
    """A folder, or `s3://bucket/prefix` with credentials in the usual AWS_ variables; made or opened at the first call.

    Safe for all threads. Raises `PlaceAway` when it cannot be reached, refuses, or takes too long: the same call may succeed
    later. Of several files that are written in one call, any may be missing after it failed.
    """

    def __init__(self, where: str, seconds: float = SECONDS, beat: Callable[[], None] | None = None) -> None:
        """`seconds` limits a call; `beat` is called about once a second while one waits."""
        self.where = where
        self.is_folder = not where.startswith(_S3)
        self._calls = CallsInTime(seconds, beat=beat)
        self._files: _Files = _Folder(Path(where)) if self.is_folder else _Bucket(where, seconds)

    def read(self, name: str) -> bytes | None:
        """The file's content; None when there is none of that name."""
        _check(name)
        with suppress(FileNotFoundError):
            return self._call("read", lambda: self._files.read(name))
        return None

    def written_at(self, name: str) -> datetime | None:
        """When the file was written, by the clock of the place; None when there is none of that name."""
        _check(name)
        with suppress(FileNotFoundError):
            return self._call("read", lambda: self._files.written_at(name))
        return None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write the files, each in the place of one that is there; a reader sees the old one or the new one."""
        for name in files:
            _check(name)
        try:
            self._call("write", lambda: self._files.write(files))
        except FileNotFoundError as error:  # another process has deleted the folder meanwhile
            raise PlaceAway(f"{self.where} cannot write: {first_line(error)}") from error

    def create(self, name: str, content: bytes) -> bool:
        """Write the file unless there is one of that name, which is left as it is; give whether this call wrote it."""
        _check(name)
        try:
            self._call("write", lambda: self._files.create(name, content))
        except FileExistsError:
            return False
        return True

    def names(self, folder: str, after: str = "") -> list[str]:
        """The names of the files right in a folder that sort after `after`, sorted; at most a thousand."""
        _check(folder)
        return self._call("list", lambda: self._files.names(folder, after))

    def delete(self, folder: str) -> None:
        """Delete a folder's files. Nothing happens if there is none."""
        _check(folder)
        self._call("delete", lambda: self._files.delete(folder))

    def _call(self, what: str, work: Callable[[], _Result]) -> _Result:
        try:
            return self._calls.call(what, work)
        except Late as late:
            raise PlaceAway(f"{self.where} {late}") from late
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, obstore.exceptions.BaseError) as error:
            raise PlaceAway(f"{self.where} cannot {what}: {first_line(error)}") from error


class Patience:
    """The time that may be lost at places that are away, in one piece of work over many of their files.

    A place that hangs costs each call its whole limit. After `seconds` lost in failures nothing is asked any more: what would
    be is away for the same reason.
    """

    def __init__(self, seconds: float = LOST) -> None:
        self._left = seconds
        self._why = ""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Note the time if the block raises `PlaceAway`; raise that at once when none is left."""
        if self._left <= 0:
            raise PlaceAway(self._why)
        began = time.monotonic()
        try:
            yield
        except PlaceAway as error:
            self._left, self._why = self._left - (time.monotonic() - began), str(error)
            raise


class _Folder:
    """Files under a folder of this machine. A name is complete when it appears: its content was flushed before."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def read(self, name: str) -> bytes:
        with (self._root / name).open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError(f"{name} is larger than any of these files")
        return content

    def written_at(self, name: str) -> datetime:
        return datetime.fromtimestamp((self._root / name).stat().st_mtime, UTC)

    def write(self, files: Mapping[str, bytes]) -> None:
        folders = set()
        for name, content in files.items():
            path = self._root / name
            fresh = self._fresh(path, content)
            fresh.replace(path)
            folders.add(path.parent)
        for folder in folders:
            flush_folder(folder)

    def create(self, name: str, content: bytes) -> None:
        path = self._root / name
        fresh = self._fresh(path, content)
        try:
            fresh.chmod(0o444)
            os.link(fresh, path)  # unlike a rename, refuses a name that exists
        finally:
            fresh.unlink()
        flush_folder(path.parent)

    def names(self, folder: str, after: str) -> list[str]:
        try:
            found = os.scandir(self._root / folder)
        except FileNotFoundError:
            return []
        with found:
            return sorted(each.name for each in found if each.name > after and each.is_file())[:1000]

    def delete(self, folder: str) -> None:
        rmtree(self._root / folder, ignore_errors=True)

    def _fresh(self, path: Path, content: bytes) -> Path:
        """A flushed file beside `path`; one that a killed process leaves is not served, because its name has a #."""
        make_folders(path.parent, 0o755)
        fresh = path.with_name(f"{path.name}#{secrets.token_hex(4)}")
        fresh.write_bytes(content)
        flush(fresh)
        return fresh


class _Bucket:
    """Objects under a prefix in S3."""

    def __init__(self, where: str, seconds: float) -> None:
        self._store: S3Store = bucket(where, seconds)

    def read(self, name: str) -> bytes:
        found = obstore.get(self._store, name)
        if found.meta["size"] > LARGEST:
            raise OSError(f"{name} is larger than any of these files")
        return bytes(found.bytes())

    def written_at(self, name: str) -> datetime:
        return obstore.head(self._store, name)["last_modified"]

    def write(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            obstore.put(self._store, name, content, use_multipart=False)

    def create(self, name: str, content: bytes) -> None:
        try:
            obstore.put(self._store, name, content, mode="create", use_multipart=False)
        except obstore.exceptions.AlreadyExistsError as error:
            raise FileExistsError(name) from error

    def names(self, folder: str, after: str) -> list[str]:
        return [*self._listed(f"{folder}/", f"{folder}/{after}" if after else None)][:1000]

    def delete(self, folder: str) -> None:
        names = [f"{folder}/{name}" for name in self._listed(f"{folder}/", None)]
        if names:
            obstore.delete(self._store, names)

    def _listed(self, folder: str, offset: str | None) -> Iterator[str]:
        """Sorted, as S3 lists them, without those in folders further down."""
        for page in obstore.list(self._store, folder, offset=offset):
            for each in page:
                name = each["path"].removeprefix(folder)
                if "/" not in name:
                    yield name


def _check(name: str) -> None:
    """Refuse a name that could lead out of the place."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a file of a log: {name!r:.100}")
