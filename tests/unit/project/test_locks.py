import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock")


def blocks(lock: str) -> list[str]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(lock: str) -> dict[str, tuple[Version, Marker | None]]:
    requirements = [Requirement(block.split("--hash")[0].strip()) for block in blocks(lock)]
    return {canonicalize_name(one.name): (Version(next(iter(one.specifier)).version), one.marker) for one in requirements}


def declared(lock: str) -> list[str]:
    runtime: list[str] = PROJECT["project"]["dependencies"]
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    if lock == "requirements.lock":
        return runtime
    return [*runtime, *extras["bench"], *extras["dev"], *PROJECT["build-system"]["requires"], "editables"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_locked_within_its_range(lock: str) -> None:
    locked = pins(lock)
    outside = [
        text
        for text in declared(lock)
        if (one := Requirement(text)) and not one.specifier.contains(locked[canonicalize_name(one.name)][0])
    ]

    assert [] == outside


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_one_exact_version_with_its_hashes(lock: str) -> None:
    form = re.compile(r"[\w.-]+==[\w.!+-]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+\s*")

    assert [] == [block[:80] for block in blocks(lock) if not form.fullmatch(block)]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_no_index_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text()

    assert [] == re.findall(r".*(?:://|file:|^\s*-i |^\s*--(?!hash)).*", text, re.MULTILINE)
    assert [] == re.findall(r"#.*\s/\S+", text)


def test_what_runs_is_what_was_tested() -> None:
    runtime, development = pins("requirements.lock"), pins("requirements-dev.lock")

    assert runtime == {name: development.get(name) for name in runtime}


def test_the_runtime_lock_has_no_tools_of_development() -> None:
    assert set() == {"pytest", "ruff", "mypy", "hatchling", "celery"} & set(pins("requirements.lock"))
