"""Fixtures for every test: private servers, started once, and folders that the servers' accounts can enter."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from hypothesis import settings as property_tests
from hypothesis.internal import charmap
from hypothesis.internal.conjecture import providers
from hypothesis.internal.intervalsets import IntervalSet

import measured
from ops.servers import postgres
from ops.servers.leftovers import end_leftovers
from ops.servers.postgres import USER
from ops.servers.private import PrivateServers, erase_servers, private_servers
from ops.servers.state_file import peek
from support.broker import on_one_core
from support.forked import share_fork_server
from support.sessions import quick_password
from support.waiting import lateness_measured, wait_for
from testers import pytest_addoption as add_testers
from testers import pytest_runtestloop

__all__ = ["pytest_runtestloop"]

MEMORY = Path("/dev/shm")
ENOUGH = 4 * 2**30  # bytes; containers often have 64 MiB

# Whether an example takes less than 200 ms depends on how busy the machine is, not on whether the property holds.
# Every run tries the same 40 examples, so that only a change can fail; `pytest --hypothesis-profile=thorough` searches on.
property_tests.register_profile("unhurried", deadline=None, max_examples=40, derandomize=True)
property_tests.register_profile("thorough", deadline=None, max_examples=1000)
property_tests.load_profile("unhurried")

_configure_logs = structlog.configure


def _configure_logs_uncached(**settings: Any) -> None:
    """A logger keeps the configuration of its first use otherwise, also in the tests that follow."""
    _configure_logs(**settings | {"cache_logger_on_first_use": False})


structlog.configure = _configure_logs_uncached
# Not to `sys.stdout`: what a thread of the test's process logs would be taken for the output of a command.
# With plain tracebacks, as the processes write them: rich ones show every local variable, for a second of CPU each.
_rendered = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
    processors=[*structlog.get_config()["processors"][:-1], _rendered],
)

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_testers(parser)
    parser.addoption("--measure", action="store_true", help="measure the coverage of the packages")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the examples the same in every process: else they include constants of the modules that were imported so far."""
    if not config.getoption("--hypothesis-profile"):
        providers._get_local_constants = lambda: providers._local_constants  # reading them takes 5 s of CPU a process


_codec_intervals = charmap.intervals_from_codec


def _intervals(codec: str) -> tuple[IntervalSet, IntervalSet]:
    """Which characters the codec has. Hypothesis tries all of them, for two seconds of CPU; of UTF-8 it is known."""
    if codec == "utf-8":
        return IntervalSet([(0, 0xD7FF), (0xE000, sys.maxunicode)]), IntervalSet([])
    return _codec_intervals(codec)


charmap.intervals_from_codec = _intervals

gc.disable()  # until all tests are collected: nothing of what that makes can be freed


def pytest_sessionstart(session: pytest.Session) -> None:
    """Has the fork server import what it needs while the tests are collected."""
    if session.config.option.testers and not session.config.option.collectonly:
        share_fork_server()


def pytest_collection_finish() -> None:
    """Leaves what was collected out of every later garbage collection, which would go through it in vain."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the processes have it
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Reports the coverage; too little of it fails a run that passed."""
    if measured.MEASURING is None or session.config.option.collectonly:
        return
    enough = measured.report(session.config.pluginmanager.getplugin("terminalreporter"))
    if not enough and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mixes files that mostly compute with those that mostly wait, so that files side by side leave no core idle.

    Files with slow tests come first among those of their kind, so that none of them starts last. The last files of all are
    such that compute: they are short, so the processes end together.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    files = sorted(dict.fromkeys(item.path for item in items), key=lambda path: path not in slow)
    computing = [path for path in files if "unit" in path.parts]
    waiting = [path for path in files if "unit" not in path.parts]
    places: dict[Path, float] = {}
    for kind, last in ((computing, 1.0), (waiting, 0.9)):
        lengths = [3 if path in slow else 1 for path in kind]
        places |= {path: last * end / sum(lengths) for path, end in zip(kind, accumulate(lengths), strict=True)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undoes what a test, or a command that it runs in its own process, configures for the logs."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def servers() -> Iterator[PrivateServers]:
    """One PostgreSQL and one RabbitMQ for the whole session; share them, and use databases and names of your own."""
    folder = enterable_folder()
    try:
        with ExitStack() as stack:
            with on_one_core(), pytest.MonkeyPatch.context() as patch:
                # To make or drop a database, PostgreSQL goes through all of its buffers.
                patch.setattr(postgres, "_MOST_BUFFERS", postgres._LEAST_BUFFERS)
                running = stack.enter_context(private_servers(folder))
            os.sched_setaffinity(running.postgres_pid, os.sched_getaffinity(0))
            sync_files(running, on=False)
            hash_once(running)
            yield running
        assert no_server_is_left(folder)
    finally:
        erase(folder)


def hash_once(servers: PrivateServers) -> None:
    """Logging in as the owner takes less of the client's CPU from now on."""
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE {USER} PASSWORD '{quick_password(servers.memory.passwords['postgres'])}'")


@pytest.fixture(scope="module")
def durable(servers: PrivateServers) -> Iterator[None]:
    """PostgreSQL as the product configures it, for tests that kill, freeze or restart it, or check what it promises."""
    sync_files(servers, on=True)
    yield
    sync_files(servers, on=False)


def sync_files(servers: PrivateServers, *, on: bool) -> None:
    """Makes PostgreSQL wait for the disk, or leave its files to the kernel: no test crashes the machine.

    When off, a commit still waits until the kernel has its log, and autovacuum looks as seldom as it does by default: there
    are many databases, and tests analyse what they need analysed. Servers that a test starts itself are never changed.
    """
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        for setting, value in {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "1min"}.items():
            conn.execute(f"ALTER SYSTEM RESET {setting}" if on else f"ALTER SYSTEM SET {setting} = '{value}'")
        conn.execute("SELECT pg_reload_conf()")
    wait_for(lambda: syncs_files(servers) is on)


def syncs_files(servers: PrivateServers) -> bool:
    with psycopg.connect(servers.database_url) as conn:
        return conn.execute(
            "SELECT current_setting('fsync')::bool AND current_setting('full_page_writes')::bool"
        ).fetchone() == (True,)


@pytest.fixture(scope="module")
def traced() -> Iterator[None]:
    """Measures the coverage of the processes that the module starts: for the few that start each program once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in measured.variables().items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def lateness() -> Iterator[Callable[[], float]]:
    """How many seconds later than promised something with a deadline may end, given how busy the machine is."""
    with lateness_measured() as lateness:
        yield lateness


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """An empty data folder that the servers' accounts can enter; they cannot enter pytest's own under root."""
    folder = enterable_folder()
    yield folder
    erase(folder)


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """The same for all tests of a module."""
    folder = enterable_folder()
    yield folder
    erase(folder)


def enterable_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="waxseal-", dir=MEMORY if has_memory() else None))
    folder.chmod(0o711)
    return folder


def has_memory() -> bool:
    """Whether there is a file system in memory with room for the servers' files.

    PostgreSQL makes and drops a database there for a tenth of the CPU. What it holds outlives every process, as a disk's.
    """
    return MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH


def no_server_is_left(folder: Path) -> bool:
    memory = peek(folder)
    return memory is None or end_leftovers(*memory.workplaces) == 0


def erase(folder: Path) -> None:
    erase_servers(folder)
    shutil.rmtree(folder, ignore_errors=True)
