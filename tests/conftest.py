"""What every test may ask for: private servers, started once, and folders that they can enter."""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as property_tests
from tests_support import lateness_measured

from ops.leftovers import end_leftovers
from ops.memory import peek
from ops.servers import PrivateServers, erase_servers, private_servers

# Whether an example is done in 200 ms says how busy the machine is, not whether the property holds.
property_tests.register_profile("unhurried", deadline=None)
property_tests.load_profile("unhurried")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none is the last to begin when files run side by side."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def servers() -> Iterator[PrivateServers]:
    """One PostgreSQL and one RabbitMQ for the whole session; share them, and keep to databases and names of your own."""
    folder = enterable_folder()
    try:
        with private_servers(folder) as running:
            yield running
        assert no_server_is_left(folder)
    finally:
        erase(folder)


@pytest.fixture
def lateness() -> Iterator[Callable[[], float]]:
    """By how many seconds more than promised whatever has a deadline may end, for how busy the machine is during the test."""
    with lateness_measured() as lateness:
        yield lateness


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """An empty data folder that the servers' accounts can enter, unlike pytest's own under root."""
    folder = enterable_folder()
    yield folder
    erase(folder)


def enterable_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="waxseal-"))
    folder.chmod(0o711)
    return folder


def no_server_is_left(folder: Path) -> bool:
    memory = peek(folder)
    return memory is None or end_leftovers(*memory.workplaces) == 0


def erase(folder: Path) -> None:
    erase_servers(folder)
    shutil.rmtree(folder, ignore_errors=True)
