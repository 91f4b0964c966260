"""The tests of a module here share a database, and each finds it empty."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.config.apply import Difference, apply_file
from ops.runtime.db import make_engine
from ops.settings import Settings
from support.emptying import database

__all__ = ["database"]


@pytest.fixture
def settings(database: Any) -> Settings:
    return Settings(database_url=database.url, keys=database.key)


@pytest.fixture(scope="module")
def shared_eraser(shared_database: Any) -> Iterator[Engine]:
    """A pool with the rights of waxseal_eraser, which is all that erasing needs."""
    engine = make_engine(shared_database.eraser_url, pool_size=3)
    yield engine
    engine.dispose()


@pytest.fixture
def eraser(database: Any, shared_eraser: Engine) -> Engine:
    return shared_eraser


@pytest.fixture
def apply(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Callable[..., Difference]:
    """Applies a configuration, which is the module's `FILE` if none is given."""

    def run(text: str | None = None, **options: bool) -> Difference:
        (tmp_path / "waxseal.yaml").write_text(request.module.FILE if text is None else text)
        return apply_file(tmp_path / "waxseal.yaml", settings, **options)

    return run
