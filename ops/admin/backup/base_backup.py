"""The database in a backup, by PostgreSQL's own programs: a compressed base backup with the WAL that makes it consistent."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import make_url

from ops.admin.backup import unpacking
from ops.errors import OpsError, ServersMissing
from ops.servers.binaries import find_postgres
from ops.servers.process_tree import STILL, Progress, run_watched, work_done
from ops.settings import bare_environment

_MANIFEST: Final = "backup_manifest"  # PostgreSQL's, beside its archives
_ARCHIVES: Final = (("base.tar.gz", "."), ("pg_wal.tar.gz", "pg_wal"))


def program(version: str, name: str) -> Path:
    """The path of a program of this version of PostgreSQL. Raises `ServersMissing`."""
    found = find_postgres(version) / name
    if not found.exists():
        raise ServersMissing(f"{name} of PostgreSQL {version} is not on this machine: install PostgreSQL's server and client")
    return found


def take(database_url: str, version: str, folder: Path, still: float = STILL) -> dict[str, Any]:
    """Take a base backup into a new folder; returns the WAL that it needs: timeline, start and end. It is on disk then.

    Raises `OpsError`, also when nothing has come from the server for `still` seconds.
    """
    url = make_url(database_url).set(drivername="postgresql")
    shown = url.set(password=None).render_as_string(hide_password=False)  # the list of processes shows it
    password = {"PGPASSWORD": url.password} if url.password else {}
    options = ["--dbname", shown, "--pgdata", str(folder), "--no-password"]
    options += ["--format=tar", "--compress=1", "--wal-method=stream", "--checkpoint=fast", "--manifest-checksums=SHA256"]
    more = {**password, "PGAPPNAME": "waxseal backup", "PGCONNECT_TIMEOUT": "10"}
    run_program(version, "pg_basebackup", options, more=more, progress=lambda _process: _bytes_in(folder), still=still)
    (found,) = json.loads((folder / _MANIFEST).read_text())["WAL-Ranges"]
    return {"timeline": found["Timeline"], "start": found["Start-LSN"], "end": found["End-LSN"]}


def unpack(folder: Path, data: Path) -> None:
    """Make a data folder of a base backup; the names in it are checked, and what it holds is on disk then."""
    data.mkdir(mode=0o700)
    for name, below in _ARCHIVES:
        unpacking.unpack(folder / name, data / below)
    (data / _MANIFEST).write_bytes((folder / _MANIFEST).read_bytes())
    os.sync()


def verify(version: str, data: Path) -> None:
    """Have PostgreSQL check every file of an unpacked base backup, and that its WAL is complete. Raises `OpsError`."""
    run_program(version, "pg_verifybackup", ["--quiet", str(data)])


def run_program(
    version: str,
    name: str,
    options: Sequence[str],
    *,
    more: Mapping[str, str] = MappingProxyType({}),
    progress: Progress = work_done,
    still: float = STILL,
) -> None:
    """Run a program of this version of PostgreSQL, with `more` in its environment.

    Raises `OpsError` with what it said when it fails, or when it has made no progress for `still` seconds.
    """
    ended = run_watched([str(program(version, name)), *options], {**bare_environment(), **more}, progress, still=still)
    if ended.returncode != 0:
        killed = f"it was killed by signal {-ended.returncode}" if ended.returncode < 0 else "it does not say why"
        told = " ".join(ended.stderr.split()) or killed
        raise OpsError(f"{name} failed: {told[:500]}")


def _bytes_in(folder: Path) -> int:
    """The bytes that have come so far."""
    found = 0
    for path in folder.glob("*"):
        with suppress(OSError):
            found += path.stat().st_size
    return found
