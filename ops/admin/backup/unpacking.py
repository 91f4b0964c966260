"""Unpacks an archive of a backup; nothing in it leads out of the folder, whoever wrote it."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ops.errors import OpsError


def unpack(path: Path, folder: Path) -> None:
    """Unpack all of a tar archive into `folder`, as files of ours. Raises `OpsError` for a damaged or hostile one."""
    try:
        with tarfile.open(path) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(folder, filter="data")
            else:  # Python before 3.11.4, as in Debian 12
                archive.extractall(folder, members=_harmless(archive))  # noqa: S202 - they are
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
