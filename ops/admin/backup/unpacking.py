"""Unpacks an archive of a backup; nothing in it leads out of the folder, whoever wrote it."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ops.errors import OpsError

#: Python's own filter, which versions before 3.11.4 lack, as in Debian 12, resolves the path of each member several times: a
#: third of the time, for links, of which there are none here.
_UNFILTERED: Final[dict[str, Any]] = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}


def unpack(path: Path, folder: Path) -> None:
    """Unpack all of a tar archive into `folder`, as files of ours. Raises `OpsError` for a damaged or hostile one."""
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, members=_harmless(archive), **_UNFILTERED)  # noqa: S202 - they are
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise OpsError(f"{path} cannot be unpacked: {error}") from error


def _harmless(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not (member.isreg() or member.isdir()):
            raise tarfile.TarError(f"{member.name!r} is no file or folder in it")
        member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        member.mode &= 0o755
        yield member
