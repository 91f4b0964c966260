"""Sets up, in a bare clone, everything that `make demo` and `make test` need: `python3 -m ops.bootstrap`.

It runs before the virtual environment exists, so it imports only the standard library. It parses on older Pythons, so that it
can tell their users what is missing. Running it again does only what is left to do. With `--tests` it also installs what only
the tests need: a mail server, Prometheus, its Alertmanager and its exporter of Postgres, a browser, PgBouncer, systemd's
checker, nftables, and curl.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
STAMP = VENV / "waxseal-installed"
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
# program: the packages that it is in
FOR_TESTS = {
    "/usr/sbin/dovecot": ("dovecot-core", "dovecot-imapd"),
    "/usr/bin/promtool": ("prometheus",),
    "/usr/bin/amtool": ("prometheus-alertmanager",),
    "/usr/bin/prometheus-postgres-exporter": ("prometheus-postgres-exporter",),
    "/usr/bin/chromium-headless-shell": ("chromium-headless-shell", "fonts-dejavu-core"),
    "/usr/sbin/pgbouncer": ("pgbouncer",),
    "/usr/bin/systemd-analyze": ("systemd",),
    "/usr/sbin/nft": ("nftables",),
    "/usr/bin/curl": ("curl",),
}
# Compiles, matches and counts; prints the CPU seconds of the fastest of 20 runs.
SPEED = """
import argparse, inspect, re, time
source, counted = inspect.getsource(argparse), {}
def run():
    began = time.process_time()
    compile(source, "argparse", "exec")
    for word in re.findall(r"[a-z]+_?[a-z]*", source): counted[word] = counted.get(word, 0) + 1
    return time.process_time() - began
print(min(run() for _ in range(20)))
"""
CONTAINERS = "or run it in containers: docker compose up"


def main() -> None:
    """Do what is left to do and report each step; exit with 2 and one message when the user has to do something first."""
    if sys.version_info < OLDEST:
        _continue_with_a_newer_python()
    _install_servers()
    if sys.argv[1:] == ["--tests"]:
        _install_for_tests()
    _make_environment()
    _install_packages()


def _continue_with_a_newer_python() -> NoReturn:
    for name in NEWER:
        python = shutil.which(name)
        if python and _works([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]):
            os.execv(python, [python, "-m", "ops.bootstrap", *sys.argv[1:]])  # noqa: S606 - this same program, on a newer Python
    this = ".".join(str(number) for number in sys.version_info[:2])
    _give_up(f"Python 3.11 or newer is needed, this is {this}: install it, for example as python3.11; {CONTAINERS}")


def _install_servers() -> None:
    """Install PostgreSQL and RabbitMQ where apt can, without starting them; they run as private servers only."""
    missing = _missing_servers()
    if not missing:
        return
    names = " and ".join(missing)
    _apt_install(missing, f"{names} not found on this machine")
    still = _missing_servers()
    if still:
        _give_up(f"{' and '.join(still)} was installed but is not found: put its programs on PATH; {CONTAINERS}")


def _install_for_tests() -> None:
    """Install what only the tests need, and `bench mail` and `up --observe` can use, without starting it."""
    lacking = [program for program in FOR_TESTS if not (Path(program).exists() or shutil.which(Path(program).name))]
    if lacking:
        names = ", ".join(Path(program).name for program in lacking)
        _apt_install([package for program in lacking for package in FOR_TESTS[program]], f"{names}, for the tests, not found")


def _missing_servers() -> list[str]:
    from ops.errors import ServersMissing  # noqa: PLC0415 - cannot be imported on an older Python
    from ops.servers.binaries import find_epmd, find_postgres, find_rabbitmq  # noqa: PLC0415

    wanted: list[tuple[str, Callable[[], Path]]] = [
        ("postgresql", find_postgres),
        ("rabbitmq-server", find_rabbitmq),
        ("rabbitmq-server", find_epmd),
    ]
    missing = []
    for package, find in wanted:
        try:
            find()
        except ServersMissing:
            missing.append(package)
    return sorted(set(missing))


def _make_environment() -> None:
    python = VENV / "bin" / "python"
    if _works([python, "-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))"]):
        return
    if not _works([sys.executable, "-c", "import ensurepip, venv"]):
        _apt_install([f"{_this_version()}-venv"], "Python's venv module is missing")
    fastest = _fastest_python()
    _say(
        f"making {VENV.name} with Python {sys.version.split()[0]}"
        if fastest == sys.executable
        else f"making {VENV.name} with {fastest}"
    )
    _run([fastest, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made")


def _fastest_python() -> str:
    """This Python, unless PATH has one of the same version that takes at most 0.9 of its CPU for the same work.

    A Python built from source as pyenv does it takes 1.1 to 1.5 times the CPU of one built with profile-guided optimisation, as
    distributions build theirs. Somebody who names a PYTHON gets that one.
    """
    here = _cpu_seconds(sys.executable)
    if "PYTHON" in os.environ or here is None:
        return sys.executable
    others = {path.resolve(): path for path in (Path(folder) / _this_version() for folder in reversed(os.get_exec_path()))}
    measured = [(seconds, str(path)) for path in others.values() if (seconds := _cpu_seconds(path)) is not None]
    best, path = min(measured, default=(here, ""))
    if best > 0.9 * here:
        return sys.executable
    _say(f"{path} takes {best / here:.2f} of the CPU of {sys.executable}; make PYTHON={sys.executable} uses the latter")
    return path


def _cpu_seconds(python: str | Path) -> float | None:
    """The CPU seconds that this Python takes for a piece of work; None if it cannot run that, or cannot make environments."""
    try:
        done = subprocess.run(
            [python, "-c", f"import ensurepip, venv\n{SPEED}"], capture_output=True, text=True, check=False, timeout=60
        )
        return float(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def _this_version() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _install_packages() -> None:
    """Install the locked packages, checked by hash, then this project as an editable install."""
    done = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == done:
        return
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _say("installing the packages of requirements-dev.lock (a minute or two)")
    _run([*pip, "--use-pep517", "--require-hashes", "-r", str(LOCK)], "the packages could not be installed")
    _run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], "waxseal could not be installed")
    STAMP.write_text(done)
    _say("installed")


def _apt_install(packages: Sequence[str], why: str) -> None:
    names = " ".join(packages)
    as_root = _as_root()
    if as_root is None or not shutil.which("apt-get"):
        _give_up(f"{why}: install the packages {names} (Debian, Ubuntu: sudo apt-get install {names}); {CONTAINERS}")
    _say(f"{why}: installing {names} with apt")
    _run([*as_root, "sh", str(ROOT / "ops" / "install-servers.sh"), *packages], f"apt could not install {names}")


def _as_root() -> list[str] | None:
    """The prefix that runs a command as root: empty for root, sudo if it asks for no password; None when neither works."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if _works(["sudo", "-n", "true"]) else None


def _works(command: Sequence[str | Path]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(command: Sequence[str], complaint: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False, timeout=1800).returncode != 0:
        _give_up(f"{complaint}: the reason is above; {CONTAINERS}")


def _say(what: str) -> None:
    sys.stdout.write(f"waxseal set-up: {what}\n")
    sys.stdout.flush()


def _give_up(why: str) -> NoReturn:
    sys.stderr.write(f"waxseal set-up: {why}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
