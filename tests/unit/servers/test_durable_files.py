"""What must survive a power failure is flushed: the file before it gets its name, its folder afterwards."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.admin.verification import replacing
from ops.runtime.durable_files import flush_folder
from ops.servers.accounts import make_folder, own_file, own_folder
from ops.servers.postgres import _initdb
from ops.system.prepare import make_keys

Acts = list[tuple[str, Path]]


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> Acts:
    """Every fsync that succeeded, with the file's name at that moment, and every rename, with the new name."""
    noted: Acts = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        noted.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink()))

    def noted_replace(path: Path, target: Path) -> Path:
        noted.append(("rename", Path(target)))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return noted


def exported(path: Path) -> None:
    with replacing(path) as out:
        out.write(b"text")


@pytest.mark.parametrize("write", [lambda path: own_file(path, "text", None), exported], ids=["own", "export"])
def test_a_file_is_on_disk_before_it_replaces_the_old_one_and_its_name_is_afterwards(
    tmp_path: Path, acts: Acts, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "file")
    (_, fresh), *others = acts

    assert ("fsync", tmp_path) == (acts[0][0], fresh.parent)
    assert [("rename", tmp_path / "file"), ("fsync", tmp_path)] == others
    assert fresh.name != "file"
    assert "text" == (tmp_path / "file").read_text()


def test_the_key_for_secrets_is_on_disk_before_anything_is_encrypted_with_it(tmp_path: Path, acts: Acts) -> None:
    keys = make_keys(tmp_path)

    assert [("fsync", tmp_path / "keys.new"), ("rename", keys), ("fsync", tmp_path)] == acts


@pytest.mark.parametrize("make", [make_folder, lambda folder: own_folder(folder, None)], ids=["passable", "own"])
def test_the_names_of_new_folders_are_on_disk(tmp_path: Path, acts: Acts, make: Callable[[Path], object]) -> None:
    make(tmp_path / "new" / "data")
    make(tmp_path / "new" / "data")

    assert {("fsync", tmp_path), ("fsync", tmp_path / "new")} == set(acts)
    assert 2 == len(acts)


def test_the_name_of_the_databases_folder_is_on_disk(tmp_path: Path, acts: Acts) -> None:
    initdb = tmp_path / "initdb"
    initdb.write_text('#!/bin/sh\nexec mkdir "$2"\n')
    initdb.chmod(0o755)
    _initdb(tmp_path, tmp_path, "secret", None)

    assert [("rename", tmp_path / "data"), ("fsync", tmp_path)] == acts[-2:]


def test_everything_is_flushed_where_a_folder_cannot_be_flushed_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))

    def refuse(number: int) -> Callable[[int], None]:
        def fail(_handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    flush_folder(tmp_path)
    assert [True] == synced

    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        flush_folder(tmp_path)
