from pathlib import Path
from types import SimpleNamespace

import pytest

from ops.errors import NotReady
from ops.servers import postgres
from ops.servers.binaries import find_postgres


@pytest.mark.parametrize(
    ("program", "reason"), [("exec sleep 60", "initdb did not end within 1 s"), ("echo no >&2; exit 1", "initdb failed: no")]
)
def test_the_file_with_the_password_is_gone_when_initdb_hangs_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(postgres, "_INITDB_SECONDS", 1.0, raising=False)
    initdb = tmp_path / "initdb"
    initdb.write_text(f"#!/bin/sh\n{program}\n")
    initdb.chmod(0o755)

    with pytest.raises(NotReady, match=f"^{reason}$"):
        postgres._initdb(tmp_path, tmp_path, "secret", None)
    assert [initdb] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("memory", "buffers"), [(2**29, 128), (2**32, 512), (2**38, 2048)])
def test_the_shared_buffers_are_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch, memory: int, buffers: int) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=memory))
    programs = find_postgres()
    assert f"\nshared_buffers = {buffers}MB\n" in postgres.configuration(programs, Path("nowhere"), 5432)
