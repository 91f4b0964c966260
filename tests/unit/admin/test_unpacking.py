"""What a backup's archives may hold, on each Python."""

import io
import stat
import tarfile
from pathlib import Path

import pytest

from ops.admin.backup import unpacking
from ops.admin.backup.unpacking import unpack
from ops.errors import OpsError


@pytest.fixture(params=["this Python", "one without filters"], autouse=True)
def _python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one without filters":
        monkeypatch.setattr(unpacking, "_UNFILTERED", {})


def archived(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("base")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size, member.mode, member.uid = kind, link, 4, 0o666, 12345
        archive.addfile(member, io.BytesIO(b"data"))
    return path


def test_files_become_ours_and_nobody_else_may_write_them(tmp_path: Path) -> None:
    unpack(archived(tmp_path / "base.tar.gz", "base/1"), tmp_path / "into")

    file = tmp_path / "into" / "base" / "1"
    assert b"data" == file.read_bytes()
    assert (tmp_path.stat().st_uid, 0o644) == (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../out", tarfile.REGTYPE, ""),
        ("base/../../out", tarfile.REGTYPE, ""),
        ("/tmp/out", tarfile.REGTYPE, ""),
        ("out", tarfile.SYMTYPE, "/etc"),
        ("out", tarfile.LNKTYPE, "../out"),
        ("out", tarfile.CHRTYPE, ""),
    ],
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    with pytest.raises(OpsError, match=r"base\.tar\.gz cannot be unpacked: "):
        unpack(archived(tmp_path / "base.tar.gz", name, kind, link), tmp_path / "into")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = archived(tmp_path / "base.tar.gz", "base/1")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(OpsError, match="cannot be unpacked"):
        unpack(path, tmp_path / "into")
