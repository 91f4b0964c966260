from pathlib import Path

import pytest

from ops.errors import NotReady
from ops.servers import postgres


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
