"""Where the programs of PostgreSQL, RabbitMQ and Prometheus are on this machine."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ops.errors import ServersMissing

ADVICE = (
    "install the packages postgresql and rabbitmq-server (`make demo` and `make test` do where apt can), "
    "or use containers: docker compose up"
)


_PROMETHEUS = "/usr/bin/prometheus"


def find_postgres(version: str | None = None) -> Path:
    """Find the newest PostgreSQL, or the one of `version`, by the folder of its programs. Raises `ServersMissing`."""
    folders = [
        *_newest_first(Path("/usr/lib/postgresql").glob("*/bin")),  # Debian, Ubuntu
        *_newest_first(Path("/usr").glob("pgsql-*/bin")),  # Red Hat
        *_newest_first(Path("/opt/homebrew/opt").glob("postgresql@*/bin")),
    ]
    if on_path := shutil.which("initdb"):
        folders.insert(0, Path(on_path).resolve().parent)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists() and _has_version(folder, version):
            return folder
    if version:
        raise ServersMissing(f"the data was made by PostgreSQL {version}, which is not on this machine: install it")
    raise ServersMissing(f"PostgreSQL is not on this machine: {ADVICE}")


def find_rabbitmq() -> Path:
    """Find RabbitMQ's own start script, not Debian's wrapper, which insists on its own user. Raises `ServersMissing`."""
    found = [
        Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        *_newest_first(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")),
        Path("/opt/rabbitmq/sbin/rabbitmq-server"),
    ]
    if on_path := shutil.which("rabbitmq-server"):
        found.append(Path(on_path).resolve())
    for script in found:
        if script.exists():
            return script
    raise ServersMissing(f"RabbitMQ is not on this machine: {ADVICE}")


def find_epmd() -> Path:
    """Find Erlang's port mapper, which RabbitMQ cannot start without. Raises `ServersMissing`."""
    if on_path := shutil.which("epmd"):
        return Path(on_path)
    for root in _erlang_roots():
        for epmd in _newest_first(root.glob("erts-*/bin/epmd")):
            return epmd
    raise ServersMissing(f"Erlang's epmd is not on this machine: {ADVICE}")


def find_erlang_library() -> Path | None:
    """Find the folder of Erlang's applications; None if it is not where it usually is."""
    return next((root / "lib" for root in _erlang_roots() if (root / "lib").is_dir()), None)


def _erlang_roots() -> list[Path]:
    roots = [Path("/usr/lib/erlang"), Path("/usr/lib64/erlang")]
    if erl := shutil.which("erl"):
        roots.insert(0, Path(erl).resolve().parents[1])
    return roots


def find_prometheus() -> Path:
    """Find Prometheus, which only `waxseal up --observe` and the tests need. Raises `ServersMissing`."""
    found = shutil.which("prometheus") or _PROMETHEUS
    if Path(found).exists():
        return Path(found)
    raise ServersMissing("Prometheus is not on this machine: install the package prometheus, or leave --observe out")


def _has_version(folder: Path, version: str | None) -> bool:
    if version is None:
        return True
    command = [str(folder / "initdb"), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return re.search(rf" {version}\b", answer.stdout) is not None


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))], reverse=True)
