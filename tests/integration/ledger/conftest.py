"""The rights of the sealer."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.runtime.db import make_engine


@pytest.fixture
def sealer_engine(database: Any) -> Iterator[Engine]:
    """A pool with the rights of waxseal_sealer, which sequencer and sealer have."""
    engine = make_engine(database.sealer_url, pool_size=4)
    yield engine
    engine.dispose()
