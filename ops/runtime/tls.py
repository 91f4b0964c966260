"""TLS as a client: servers are always verified, against the system's authorities or those that an endpoint names."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path


def client_context(client_cert: str | None = None, ca: str | None = None, client_key: str | None = None) -> ssl.SSLContext:
    """A context that verifies the server and its name, and presents `client_cert` when the server asks for a certificate.

    `client_cert` holds a certificate, its chain and, unless `client_key` does, its private key; certificates in `client_key`
    are not presented. `ca` holds the authorities to trust instead of the system's. All are PEM. Raises `ValueError` for
    invalid PEM, without showing it. Reads files, so it is not for an event loop.
    """
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise ValueError("ca must be certificates in PEM") from None
    if client_cert is not None:
        with _as_file(client_cert) as chain, _as_file(client_key or client_cert) as key:
            try:
                context.load_cert_chain(chain, key, password=_refuse_password)
            except (ssl.SSLError, ValueError):
                raise ValueError("client_cert must be a certificate and its unencrypted private key, both in PEM") from None
    return context


def system_context(objects: type[ssl.SSLObject] = ssl.SSLObject) -> ssl.SSLContext:
    """A context that trusts the system's authorities, shared by all callers, so nobody may change it; `objects` do its TLS.

    Loading the authorities takes 27 ms of CPU, so it is done again only when their file has changed.
    """
    paths = ssl.get_default_verify_paths()
    versions = _version(paths.cafile), _version(paths.capath)
    return _system_context(objects, *versions)  # type: ignore[arg-type]  # mypy looks at the hash of its objects


@lru_cache(4)
def _system_context(objects: type[ssl.SSLObject], *_versions: tuple[str, int] | None) -> ssl.SSLContext:
    context = client_context()
    context.sslobject_class = objects
    return context


def _version(path: str | None) -> tuple[str, int] | None:
    return None if path is None else (path, Path(path).stat().st_mtime_ns)


def _refuse_password() -> str:
    """Give no password: without this callback OpenSSL asks for one on the terminal."""
    raise ValueError("the private key is encrypted")


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """The path of a file that holds `text`, because OpenSSL loads keys from files only; in memory where memfd exists."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("client_cert"), "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
