import os
import re
import subprocess
import sys
from pathlib import Path

import testers
from support.waiting import wait_for

CONFTEST = f"""
import os
import sys

import pytest

sys.path.insert(0, {str(Path(testers.__file__).parent)!r})
from testers import pytest_addoption, pytest_runtestloop

@pytest.fixture(scope="session")
def server(request):
    yield os.getpid()
    with open({{folder!r}} + "/ended", "a") as ended:
        ended.write(f"{{os.getpid()}}\\n")

@pytest.fixture(scope="module")
def database(server):
    yield server
    print("database dropped")
"""
TEST = """
def test_one(database): pass
def test_two(database): pass
"""


def start(folder: Path, **files: str) -> "subprocess.Popen[str]":
    folder.joinpath("conftest.py").write_text(CONFTEST.replace("{folder!r}", repr(str(folder))))
    for name, text in files.items():
        folder.joinpath(f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "--testers=2", "-p", "no:cacheprovider", "-rA", "--rootdir=.", "-c", "/dev/null"]
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # to import them takes half of a run's CPU
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder: Path, **files: str) -> tuple[int, str]:
    process = start(folder, **files)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def test_all_tests_run_once_each_process_ends_its_fixtures_and_failures_are_told_as_usual(tmp_path: Path) -> None:
    failing = "import warnings\ndef test_wrong(database):\n  warnings.warn('look here')\n  print('a clue')\n  assert 1 == 2\n"

    status, out = run(tmp_path, a=TEST, b=TEST, c=TEST, d=failing)

    assert (status, re.findall(r"=+ (.*) in .*=", out)[-1]) == (1, "1 failed, 6 passed, 1 warning")
    assert all(word in out for word in ("assert 1 == 2", "a clue", "UserWarning: look here"))
    ended = tmp_path.joinpath("ended").read_text().split()
    assert len(ended) == len(set(ended)) in (1, 2)


def test_what_a_process_that_died_had_before_it_has_failed(tmp_path: Path) -> None:
    fatal = TEST.replace("test_two(database): pass", "test_two(database): __import__('os').kill(database, 9)")

    status, out = run(tmp_path, a=TEST, b=fatal + "def test_three(): pass", c=TEST)

    assert (status, re.findall(r"=+ (.*) in .*=", out)[-1]) == (1, "2 failed, 5 passed")
    assert "its process ended in this test, with exit code -9" in out
    assert "its process ended before this test, with exit code -9" in out


def test_a_fixture_of_the_session_that_cannot_end_fails_the_run(tmp_path: Path) -> None:
    status, out = run(
        tmp_path, a="import pytest\n@pytest.fixture(scope='session')\ndef bad():\n  yield\n  1 / 0\ndef test_a(bad): pass\n"
    )

    assert status == 1
    assert "after its last test: ZeroDivisionError" in out


def test_when_the_run_is_killed_each_process_ends_its_fixtures(tmp_path: Path) -> None:
    waiting = "import time\ndef test_three(database):\n  open('waiting', 'a').write('.')\n  time.sleep(60)\n"
    with start(tmp_path, a=waiting, b=waiting) as process:
        wait_for(lambda: (tmp_path / "waiting").exists() and (tmp_path / "waiting").read_text() == "..")
        process.kill()

    wait_for(lambda: (tmp_path / "ended").exists() and len((tmp_path / "ended").read_text().split()) == 2)
