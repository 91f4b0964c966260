"""Fixtures of the tests of transports: a certificate authority, and one database and one pool for each module."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from support.emptying import empty
from support.net.tls import Authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    """An authority that no system trusts."""
    return Authority()


@pytest.fixture
def database(shared_database: Any) -> Iterator[Any]:
    """The tests of a module have the same database one after the other, and each finds it empty."""
    yield shared_database
    empty(shared_database)


@pytest.fixture
def engine(database: Any, shared_engine: Engine) -> Engine:
    """A pool on the test's database with the rights of a worker."""
    return shared_engine
