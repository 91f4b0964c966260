"""The URLs of Postgres and RabbitMQ: several hosts in one, and parameters that name files, read anew for each connection."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

PASSWORD_FILE: Final = "password_file"  # noqa: S105 - the name of a parameter
CA, CERT, KEY = "cacertfile", "certfile", "keyfile"  # the names that RabbitMQ gives them in its own clients' URLs
BROKER_FILES: Final = (PASSWORD_FILE, CA, CERT, KEY)

_DATABASE: Final = ("postgresql://", "postgres://", "postgresql+psycopg://")
_BROKER: Final = ("amqp://", "amqps://")
_BETWEEN: Final = re.compile(r",\s*(?=amqps?://)")


def database_url(url: str) -> str:
    """The URL, with several hosts (`//user@one:5432,two:5432/name`) in the form that SQLAlchemy reads. Raises `ValueError`."""
    if url and not url.startswith(_DATABASE):
        raise ValueError(f"must start with {' or '.join(_DATABASE)}")
    login, at, hosts = urlsplit(url).netloc.rpartition("@")
    if "," not in hosts:
        return url
    return _with_query(url.replace(login + at + hosts, login + at, 1), *(f"host={host}" for host in hosts.split(",")))


def broker_urls(urls: str) -> list[str]:
    """The URLs in a list of one or more, separated by commas."""
    return _BETWEEN.split(urls.strip())


def checked_broker_urls(urls: str) -> str:
    """The same. Raises `ValueError`, without showing a password, for what cannot be connected to as it is written."""
    for url in broker_urls(urls) if urls else ():
        if not url.startswith(_BROKER):
            raise ValueError(f"must start with {' or '.join(_BROKER)}")
        if "," in broker_place(url):
            raise ValueError(f"each in the list must start with {' or '.join(_BROKER)}")
        plain, files = split_files(url, (*BROKER_FILES, "ssl_options"))
        if "ssl_options" in files:
            raise ValueError(f"ssl_options is not read: the server is always verified; give {CA}, {CERT} and {KEY}")
        if plain.startswith("amqp://") and files.keys() - {PASSWORD_FILE}:
            raise ValueError(f"{CA}, {CERT} and {KEY} are for amqps://; amqp:// is not encrypted")
        if "@" in plain and urlsplit(plain).password is None and PASSWORD_FILE not in files:
            raise ValueError("names a user without a password")
        if (CERT in files) != (KEY in files):
            raise ValueError(f"{CERT} and {KEY} belong together")
    return urls


def broker_place(url: str) -> str:
    """Host, port and virtual host, which may be shown. Raises `ValueError`, without showing what may be a password."""
    parts = urlsplit(url)
    try:
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:
        raise ValueError(
            "must be amqp://user:password@host:port/vhost, with signs in the password as %2F and the like"
        ) from None
    return f"{parts.hostname}:{port}{parts.path}"


def with_password_file(url: str, path: Path) -> str:
    """The URL, naming the file of its user's password. Raises `ValueError`, or `OSError` if the file cannot be read."""
    parts = urlsplit(url)
    if not parts.username or parts.password is not None or PASSWORD_FILE in split_files(url, (PASSWORD_FILE,))[1]:
        raise ValueError("must name a user, and no password")
    read_password(path)
    return _with_query(url, f"{PASSWORD_FILE}={quote(str(path))}")


def read_password(path: str | Path) -> str:
    """The password in the file, which may hold any characters. Raises `OSError`."""
    try:
        return Path(path).read_text(encoding="utf-8").strip("\r\n")
    except UnicodeDecodeError:
        raise OSError(None, "is not UTF-8", str(path)) from None


def split_files(url: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """The URL without these parameters, and their values."""
    base, _, query = url.partition("?")
    given = [each.partition("=") for each in query.split("&") if each]
    kept = ["".join(each) for each in given if each[0] not in names]
    return _with_query(base, *kept), {name: unquote(value) for name, _, value in given if name in names}


def _with_query(url: str, *more: str) -> str:
    """Not by `geturl`, which loses the slashes before an empty host."""
    base, _, query = url.partition("?")
    given = [*filter(None, [query]), *more]
    return f"{base}?{'&'.join(given)}" if given else base
