"""An archive of the write-ahead log, as `waxseal up` keeps it: what of it follows a backup, and until when it goes."""

import gzip
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ops.admin.backup.base_backup import program
from ops.errors import OpsError
from ops.servers.wal_archive import SUFFIX
from ops.settings import bare_environment

_SEGMENT: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\.gz", re.ASCII)
_DUMP_SECONDS: Final = 300.0  # for one segment
#: The header of a segment's first page: magic, info, timeline, address, length of what is left; then the system's identifier.
_HEADER: Final = struct.Struct("=HHIQI4xQ")
_COMMIT: Final = re.compile(r"desc: COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC", re.ASCII)
_POINT: Final = re.compile(r"desc: RESTORE_POINT (.*)$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Following:
    """What a backup can be replayed to: `numbers` are those of the segments, from that in which the backup ends."""

    folder: Path
    postgres: str
    timeline: int
    segment_bytes: int
    ended: datetime
    numbers: range
    missing: str | None  # the first segment that is not there, though later ones are

    def latest(self) -> datetime | None:
        """When the last transaction in the archive was committed; None if there is none since the backup."""
        for number in reversed(self.numbers):
            found = _COMMIT.findall(self._dumped(number, "Transaction"))
            if found:
                return max(datetime.fromisoformat(f"{each}+00:00") for each in found)
        return None

    def has_point(self, name: str) -> bool:
        """Whether somebody made a restore point of this name since the backup. It reads all of the archive."""
        return any(name in _POINT.findall(self._dumped(number, "XLOG")) for number in self.numbers)

    def _dumped(self, number: int, kind: str) -> str:
        """The records of a kind that begin in a segment, as pg_waldump shows them."""
        name = segment_name(self.timeline, number, self.segment_bytes)
        path = self.folder / (name + SUFFIX)
        if not path.exists():  # it is in the backup
            return ""
        with TemporaryDirectory(prefix="waxseal-wal-") as scratch:
            try:
                with gzip.open(path) as packed, (Path(scratch) / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            except (OSError, EOFError) as error:
                raise OpsError(
                    f"{path} cannot be read ({error}): restore until a time before it, or use a later backup"
                ) from error
            command = [str(program(self.postgres, "pg_waldump")), "--path", scratch, f"--rmgr={kind}", name]
            # It ends with an error at the end of the segment, of which the next one is not there.
            environment = {**bare_environment(), "TZ": "UTC"}
            try:
                shown = subprocess.run(
                    command,
                    env=environment,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_DUMP_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise OpsError(f"pg_waldump did not read {path} within {_DUMP_SECONDS:g} s") from error
        return shown.stdout


def following(folder: Path, postgres: str, wal: Mapping[str, Any]) -> Following:
    """What of an archive follows a backup whose manifest says this of its WAL. Raises `OpsError` if nothing can."""
    try:
        system, size = wal["system"], wal["segment_bytes"]
    except KeyError:
        raise OpsError(
            "the backup was taken by an earlier waxseal, which noted too little for --until: take a new one"
        ) from None
    numbers = _numbers(folder, wal["timeline"], size)
    if not numbers:
        raise OpsError(
            f"{folder} has no write-ahead log of timeline {wal['timeline']}: name the archive of the server by --archive"
        )
    newest = folder / (segment_name(wal["timeline"], max(numbers), size) + SUFFIX)
    if (found := _system(newest)) != system:
        raise OpsError(f"{folder} is the archive of another server, of system {found}; the backup is of system {system}")
    first = position(wal["end"]) - 1
    last = next(number for number in count(first // size + 1) if number not in numbers) - 1
    later = [number for number in numbers if number > last]
    missing = segment_name(wal["timeline"], last + 1, size) if later else None
    ended = datetime.fromisoformat(wal["ended"])
    return Following(folder, postgres, wal["timeline"], size, ended, range(first // size, last + 1), missing)


def position(lsn: str) -> int:
    """A position in the write-ahead log, in bytes."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_name(timeline: int, number: int, size: int) -> str:
    """The name of a segment of the write-ahead log."""
    high, low = divmod(number, 2**32 // size)
    return f"{timeline:08X}{high:08X}{low:08X}"


def archived(folder: Path) -> Iterator[tuple[str, int]]:
    """The names of all segments in an archive, without suffix, and their bytes there."""
    try:
        with os.scandir(folder) as found:
            for each in found:
                if _SEGMENT.fullmatch(each.name):
                    yield each.name.removesuffix(SUFFIX), each.stat().st_size
    except OSError as error:
        raise OpsError(f"{folder}: {error.strerror}: name the archive of the server by --archive") from error


def _numbers(folder: Path, timeline: int, size: int) -> set[int]:
    per = 2**32 // size
    found = ((int(name[:8], 16), int(name[8:16], 16), int(name[16:], 16)) for name, _ in archived(folder))
    return {high * per + low for at, high, low in found if at == timeline}


def _system(path: Path) -> str:
    """The system whose write-ahead log a segment is of."""
    try:
        with gzip.open(path) as packed:
            return str(_HEADER.unpack(packed.read(_HEADER.size))[-1])
    except (OSError, EOFError, struct.error) as error:
        raise OpsError(f"{path} cannot be read ({error}): remove it from the archive") from error
