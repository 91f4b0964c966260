"""The tests of a module here share a database, and each finds it empty; they have the rights of the console."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine
from ops.settings import Settings
from support.emptying import database, engine

__all__ = ["database", "engine"]


@pytest.fixture(scope="module")
def shared_acts(shared_database: Any) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=4)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_reads(shared_database: Any) -> Iterator[Engine]:
    engine = make_engine(shared_database.console_url, pool_size=4, statement_timeout=2.0, reads_as="waxseal_reader")
    yield engine
    engine.dispose()


@pytest.fixture
def acts(database: Any, shared_acts: Engine) -> Engine:
    """A pool with the rights of waxseal_console."""
    return shared_acts


@pytest.fixture
def reads(database: Any, shared_reads: Engine) -> Engine:
    """A pool that reads with the rights of waxseal_reader."""
    return shared_reads


@pytest.fixture
def settings(database: Any, servers: Any, tmp_path: Any) -> Settings:
    return Settings(
        database_url=database.console_url, amqp_url=servers.amqp_url, keys=database.key, blobs=str(tmp_path / "blobs")
    )
