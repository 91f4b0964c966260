"""Fixtures of the tests of transports: a certificate authority, and one database and one pool for each module."""

import pytest

from support.emptying import database, engine
from support.net.tls import Authority

__all__ = ["database", "engine"]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """An authority that no system trusts."""
    return Authority()
