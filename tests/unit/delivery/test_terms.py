"""What everything that a deployment sends says of it."""

from importlib import metadata

import pytest

from ops.settings import Settings
from workers.net.terms import terms_of


def test_a_process_knows_its_version_while_pip_replaces_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version("waxseal")

    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)

    assert f"waxseal/{installed}" == terms_of(Settings()).user_agent
