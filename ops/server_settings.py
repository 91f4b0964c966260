"""The settings of the connections to Postgres and RabbitMQ."""

from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings

from ops.errors import Misconfigured
from ops.server_urls import broker_urls, checked_broker_urls, database_url, with_password_file

_FILES: Final = {"database_password_file": ("database_url", "database_direct_url"), "amqp_password_file": ("amqp_url",)}


class ServerSettings(BaseSettings):
    """Where the servers are, and as whom to log in."""

    database_url: str = Field(
        "",
        repr=False,
        description="PostgreSQL: postgresql://user:password@host:port/database, with libpq's parameters, and several hosts",
    )
    database_direct_url: str = Field(
        "",
        repr=False,
        description="PostgreSQL itself, where database_url leads to PgBouncer: for what listens, locks or sets options",
    )
    amqp_url: str = Field(
        "", repr=False, description="RabbitMQ: amqp://user:password@host:port/vhost, or amqps://; or several, with commas"
    )
    database_password_file: Path | None = Field(
        None, description="a file with the password of a database_url that has none, read for each connection"
    )
    amqp_password_file: Path | None = Field(
        None, description="a file with the password of an amqp_url that has none, read for each connection"
    )

    wal_archive: Path | None = Field(
        None,
        description="a folder, on another disk, in which the Postgres of `waxseal up` archives its write-ahead log, so that "
        "`waxseal restore --until` has it. Unset: none",
    )

    @property
    def direct_url(self) -> str:
        """The URL of Postgres itself, past a pooler."""
        return self.database_direct_url or self.database_url

    @model_validator(mode="before")
    @classmethod
    def _passwords_from_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        named = {
            url: _with_file(given.get(url, ""), Path(path), cls._variable(file), cls._variable(url))
            for file, urls in _FILES.items()
            if (path := given.get(file))
            for url in urls
            if given.get(url) or url == urls[0]
        }
        return given | named

    @field_validator("database_url", "database_direct_url", "amqp_url")
    @classmethod
    def _is_url(cls, url: str, info: ValidationInfo) -> str:
        return checked_broker_urls(url) if info.field_name == "amqp_url" else database_url(url)

    @classmethod
    def _variable(cls, name: str) -> str:
        return f"{cls.model_config.get('env_prefix', '')}{name.upper()}"


def _with_file(urls: str, path: Path, file_variable: str, url_variable: str) -> str:
    """The URL, or each in a list, with the file's path in place of a password. Raises `Misconfigured`."""
    try:
        return ",".join(with_password_file(url, path) for url in broker_urls(urls))
    except OSError as error:
        raise Misconfigured(f"{file_variable}: {error}") from error
    except ValueError as error:
        raise Misconfigured(f"{file_variable}: {url_variable} {error}") from error
