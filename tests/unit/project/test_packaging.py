import configparser
import subprocess
import sys
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = {"schemas", "pipeline", "ops", "workers"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INFO = f"waxseal-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{INFO}/METADATA").decode())


def files_of(package: str) -> set[str]:
    found = (path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: ZipFile) -> None:
    assert PACKAGES | {INFO} == {name.split("/")[0] for name in wheel.namelist()}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_the_wheel_holds_every_file_of_a_package(wheel: ZipFile, package: str) -> None:
    assert files_of(package) == {name for name in wheel.namelist() if name.startswith(f"{package}/")}


def test_the_migrations_and_the_marks_of_typed_packages_are_in_the_wheel(wheel: ZipFile) -> None:
    names = wheel.namelist()

    assert [] == [f"{package}/py.typed" for package in PACKAGES if f"{package}/py.typed" not in names]
    assert [] != [name for name in names if name.startswith("ops/migrations/versions/") and name.endswith(".py")]


def test_the_command_is_waxseal_and_leads_to_a_module_in_the_wheel(wheel: ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"{INFO}/entry_points.txt").decode())

    assert {"waxseal": "ops.cli:main"} == dict(scripts["console_scripts"])
    assert {"ops/cli.py", "ops/cli/__init__.py"} & set(wheel.namelist())


def test_the_wheel_says_for_which_python_and_under_which_licence(metadata: Message) -> None:
    assert (">=3.11", "Apache-2.0") == (metadata["Requires-Python"], metadata["License-Expression"])


def test_the_wheel_asks_for_no_tool_of_development(metadata: Message) -> None:
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]

    assert [] == [line for line in needed if line.startswith(("pytest", "ruff", "mypy", "celery", "hatchling"))]
