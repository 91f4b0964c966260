"""Setting up a bare clone, as `make` and `.ci/run` do."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pip
import pytest

ROOT = Path(__file__).parents[3]
NEEDED = ("ops/__init__.py", "ops/bootstrap.py", "ops/errors.py", "ops/servers/__init__.py", "ops/servers/binaries.py")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with no dependencies, whose project cannot be built."""
    (tmp_path / "ops" / "servers").mkdir(parents=True)
    for name in NEEDED:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "requirements-dev.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "missing"\nbackend-path = ["."]\n')
    return tmp_path


def bootstrap(folder: Path, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess:
    # The clone's own `ops` is imported, not that of the project under test.
    program = f"import sys; sys.path[0] = '.'; sys.executable = {python!r}; import ops.bootstrap as it; it.main()"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHON": python, **environment}
    environment = {name: value for name, value in environment.items() if value}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that puts our pip into the environments that it makes, which takes a tenth of the time of unpacking its own."""
    program = tmp_path / "python"
    program.write_text(f"""#!/bin/sh
set -e
[ "$1 $2 $3" = "-m venv --clear" ] || exec {sys.executable} "$@"
{sys.executable} -m venv --clear --without-pip "$4"
/bin/ln -s {Path(pip.__file__).parent} "$4"/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/pip
""")
    program.chmod(0o755)
    return str(program)


def test_a_set_up_that_fails_says_what_failed_and_the_other_way(clone: Path, python: str) -> None:
    done = bootstrap(clone, python)

    assert 2 == done.returncode
    assert "making .venv with Python" in done.stdout
    assert (clone / ".venv" / "bin" / "python").exists()
    assert "waxseal could not be installed: the reason is above; or run it in containers" in done.stderr


@pytest.mark.parametrize(("seconds", "named", "taken"), [("0.5", "", True), ("0.95", "", False), ("0.5", "python", False)])
def test_a_much_faster_python_of_the_same_version_makes_the_environment(
    clone: Path, python: str, seconds: str, named: str, *, taken: bool
) -> None:
    (clone / "bin").mkdir()
    other = clone / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program, measured in ((other, seconds), (clone / "this", "1.0")):
        program.write_text(f'#!/bin/sh\ncase "$2" in *process_time*) echo {measured}; exit;; esac\nexec {python} "$@"\n')
        program.chmod(0o755)

    done = bootstrap(clone, str(clone / "this"), PATH=f"{clone / 'bin'}:/usr/sbin", PYTHON=named)
    assert taken == (f"making .venv with {other}\n" in done.stdout)
    assert taken == (
        f"{other} takes {seconds}0 of the CPU of {clone / 'this'}; make PYTHON={clone / 'this'} uses" in done.stdout
    )


def test_what_is_done_is_not_done_again(clone: Path, python: str) -> None:
    subprocess.run([python, "-m", "venv", "--clear", clone / ".venv"], check=True, timeout=60)
    parts = (clone / "requirements-dev.lock").read_bytes(), (clone / "pyproject.toml").read_bytes(), str(clone).encode()
    (clone / ".venv" / "waxseal-installed").write_text(hashlib.sha256(b"".join(parts)).hexdigest())

    done = bootstrap(clone)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 3", 3), ("setsid sleep 60 & true", 1), ("(sleep 60 &); exit 4", 4)]
)
def test_a_command_that_leaves_a_process_behind_fails_and_the_process_is_ended(script: str, code: int) -> None:
    program = (ROOT / ".ci" / "leaves_nothing.py").read_text().replace("GRACE_SECONDS = 10.0", "GRACE_SECONDS = 0.3")
    done = subprocess.run(
        [sys.executable, "-c", program, "sh", "-c", script], stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )

    assert (code, "sleep" in script) == (done.returncode, "left behind" in done.stderr)
    for line in done.stderr.splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[2]), 0)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine whose apt notes the two files that the script changes, and kills the script if told to."""
    (tmp_path / "bin").mkdir()
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(
        f"#!/bin/sh\ncat {tmp_path}/policy {tmp_path}/clusters > {tmp_path}/seen 2>&1\n"
        f'case "$*:$KILLED_AT" in *" $KILLED_AT:$KILLED_AT") kill -9 $PPID;; esac\n'
    )
    apt.chmod(0o755)
    return tmp_path


def install_servers(machine: Path, killed_at: str = "nowhere") -> int:
    script = (ROOT / "ops" / "install-servers.sh").read_text()
    script = script.replace("/usr/sbin/policy-rc.d", f"{machine}/policy")
    script = script.replace("/etc/postgresql-common/createcluster.conf", f"{machine}/clusters")
    environment = {"PATH": f"{machine}/bin:{os.environ['PATH']}", "KILLED_AT": killed_at}
    command = ["sh", "-c", script, "sh", "postgresql"]
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode


@pytest.mark.parametrize("killed_at", ["update", "postgresql-common", "postgresql"])
@pytest.mark.parametrize("files", [{}, {"policy": "#!/bin/sh\nexit 101\n", "clusters": "data_directory = '/d'\n"}])
def test_the_machines_files_are_as_before_once_a_run_follows_one_that_was_killed(
    machine: Path, files: dict[str, str], killed_at: str
) -> None:
    for name, text in files.items():
        (machine / name).write_text(text)

    assert -9 == install_servers(machine, killed_at)
    assert -9 == install_servers(machine, killed_at)
    assert 0 == install_servers(machine)
    assert "exit 101\n" in (machine / "seen").read_text()
    assert "\ncreate_main_cluster = false\n" in (machine / "seen").read_text()
    assert files == {path.name: path.read_text() for path in machine.iterdir() if path.name not in {"bin", "seen"}}


def test_ci_is_one_command() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
