"""The TLS context that all connections without authorities of their own share."""

import os
import ssl
from pathlib import Path

import pytest

from ops.runtime.tls import system_context
from support.net.tls import Authority


class Noted(ssl.SSLObject):
    """One kind of objects that do TLS."""


def test_it_is_loaded_once_for_each_kind_of_objects_until_the_authorities_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(Authority("one").ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    first = system_context()
    assert first is system_context()
    assert (ssl.SSLObject, Noted) == (first.sslobject_class, system_context(Noted).sslobject_class)

    trusted.write_text(Authority("other").ca)
    os.utime(trusted, (1, 1))
    assert system_context().get_ca_certs() != first.get_ca_certs()
