"""What tests of mailboxes share: a Dovecot, the providers' APIs, and one database for each file, emptied after each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.emptying import database, engine
from support.mail.api import serving
from support.mail.dovecot import Dovecot, private_dovecot
from support.mail.gmail import Gmail
from support.mail.graph import Graph
from support.mail.mailboxes import KeepingIntake
from workers.mail.api import gmail as api_gmail
from workers.mail.api import graph as api_graph
from workers.mail.api.quota import Paces

__all__ = ["database", "engine"]

_users = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Dovecot]:
    """One Dovecot for all files. A test that stops or kills processes of it leaves it as it was."""
    with private_dovecot(connections=200) as running:
        yield running


@pytest.fixture
def user() -> str:
    """The name of a user of `server` that no other test has."""
    return f"u{next(_users)}"


@pytest.fixture
def unhurried(loopback: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this process ask servers on this machine, as often as it likes."""
    for module in (api_gmail, api_graph):
        monkeypatch.setattr(module, "PACES", Paces(1e6, 1e6))


@pytest.fixture
def gmail(unhurried: None) -> Iterator[Gmail]:
    with serving(Gmail()) as fake:
        yield fake


@pytest.fixture
def graph(unhurried: None) -> Iterator[Graph]:
    with serving(Graph()) as fake:
        yield fake


@pytest.fixture
def inbox() -> KeepingIntake:
    return KeepingIntake()


@pytest.fixture(scope="module")
def blob_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file's blob store."""
    return tmp_path_factory.mktemp("blobs")
