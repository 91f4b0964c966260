"""The settings: every `WAXSEAL_` variable, its default and its meaning. Nothing else reads the environment."""

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ops.console_settings import ConsoleSettings
from ops.errors import Misconfigured
from ops.keeping_settings import KeepingSettings
from ops.server_settings import ServerSettings
from pipeline.delivery.addresses import networks
from schemas.config.anchors import read_anchors
from schemas.ledger.log_names import read_origin

PREFIX: Final = "WAXSEAL_"
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(lambda value: str(value).lower())
]


class Settings(ServerSettings, ConsoleSettings, KeepingSettings):
    """The settings of one process, read once at its start and never changed; its repr shows no secrets.

    A URL that is not set is empty; a process names the settings that it requires (`load_settings`).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    keys: str = Field("", repr=False, description="Fernet keys for secrets at rest, comma-separated, newest first")
    keys_file: Path | None = Field(None, description="a file with those keys, one per line or comma-separated")
    blobs: str = Field(
        ".waxseal/blobs",
        description="where bodies over 256 KiB are kept: a folder that all processes share, or s3://bucket/prefix, with "
        "credentials, region and endpoint in the usual AWS_ variables",
    )
    log: Literal["auto", "console", "json"] = Field(
        "auto", description="form of the logs; auto: console on a terminal, else json"
    )
    log_level: LogLevel = Field("info", description="least severe log line: debug, info, warning, error or critical")
    metrics_host: str = Field("127.0.0.1", description="address that serves /metrics, /livez and /readyz")
    metrics_port: int = Field(0, ge=0, le=65535, description="its port; 0: any free port")
    unready_after: float = Field(
        10.0, gt=0, description="seconds without an answer from Postgres or RabbitMQ after which /readyz says 503"
    )
    collect_every: float = Field(
        15.0,
        gt=0,
        le=30,
        description="seconds between two readings of depths, ages and counts, by one of the relays. More makes figures and "
        "alerts late, less costs Postgres a few queries each",
    )
    ingress_host: str = Field("127.0.0.1", description="address that the HTTP ingress listens on")
    ingress_port: int = Field(8420, ge=0, le=65535, description="its port; 0: any free one")
    ingress_processes: int = Field(
        1, ge=1, le=1000, description="ingress processes behind one load balancer; each allows its share of a rate_limit"
    )
    ingress_connections_per_address: int = Field(
        1000,
        ge=1,
        le=2000,
        description="connections that one client address, or IPv6 /64 network, may have to an ingress process, which takes "
        "2000 in all. The default is half: no address can exclude the others, and a load balancer, behind which all clients "
        "have one address, still has more than a process can answer at once. For one more, the longest idle is closed",
    )
    batch_size: int = Field(
        2000, ge=1, le=10_000, description="most events appended in one transaction; more if Postgres is far"
    )
    prefetch: int = Field(
        4000,
        ge=1,
        le=65535,
        description="unacknowledged messages per ingest process; at least twice as many as are appended in one transaction",
    )
    confirm_timeout: float = Field(5.0, gt=0, description="seconds to wait for the broker's confirm before a 503")
    lease: float = Field(
        90.0,
        gt=0,
        description="seconds of the lease on a claimed delivery; renewed while it is being sent, and due again when it ends",
    )
    delivery_threads: int = Field(32, ge=1, le=1024, description="threads per delivery process")
    mail_threads: int = Field(16, ge=1, le=256, description="threads per mail-pull process; four more for slow mailboxes")
    mail_idle_folders: int = Field(
        4,
        ge=1,
        le=1000,
        description="folders of a mailbox that mail-idle watches, with one connection each; the others are read every `poll`",
    )
    max_leased: int = Field(
        4000, ge=1, description="most deliveries claimed and not yet settled; beyond that, ten for each endpoint"
    )
    breaker_failures: int = Field(10, ge=1, description="failures in the window that an endpoint's breaker needs to open")
    breaker_ratio: float = Field(0.7, gt=0, le=1, description="share of failures in the window at which it opens")
    breaker_window: float = Field(300.0, gt=0, description="seconds of the window, from its first failure")
    breaker_wait: float = Field(10.0, gt=0, description="seconds from opening to the first probe; doubled with each that fails")
    breaker_longest_wait: float = Field(600.0, gt=0, description="most seconds between two probes")
    disable_after: float = Field(
        432_000.0,
        gt=0,
        description="seconds of nothing but failures, at least breaker_failures of them, after which an endpoint is disabled",
    )
    allow_networks: str = Field(
        "",
        description="private networks in which endpoints, mail servers and mail APIs may be, as comma-separated CIDRs. "
        "Unset: none, except with `waxseal up`: 127.0.0.0/8,::1/128. The value none: none there either. "
        "A cloud's metadata address needs an entry of its own",
    )
    proxy: str = Field(
        "",
        repr=False,
        description="proxy for deliveries over HTTP and for mail APIs: http(s)://[user:password@]host:port. The proxy must "
        "then refuse names that lead to private networks",
    )
    log_files: str = Field(
        "",
        description="where the tenants' logs are published: a folder, or s3://bucket/prefix with the usual AWS_ variables. "
        "With `waxseal up`: published, in the data folder",
    )
    log_origin: str = Field(
        "",
        description="what names the tenants' logs: {origin}/{tenant}, a URL without scheme. With `waxseal up`: waxseal.local",
    )
    log_anchors: str = Field(
        "",
        description="where checkpoints are anchored besides, separated by spaces: /folder, s3://bucket/prefix, "
        "rfc3161+https://host/path#ca=FILE, witness+https://host/prefix#vkey=KEY; &every=1h: not more often",
    )
    log_every: float = Field(
        5.0,
        ge=0.1,
        description="seconds between two checkpoints of a log that grows. Each is kept for ever, and written as four files",
    )
    log_heads_every: float = Field(
        86_400.0,
        ge=1,
        description="seconds between two entries that say where every chain of a tenant ended, if its log grew",
    )
    mail_dns: bool = Field(True, description="look keys up in DNS to check DKIM and ARC signatures of mails for documents")
    erase_requests: bool = Field(True, description="the eraser erases what admins ask for, and not the command alone")
    retention_most: int = Field(100_000, ge=1, description="entries that the eraser erases at most in one of its hourly runs")
    verify_every: float = Field(
        600.0, gt=0, description="seconds between two verifications of what is new, by `waxseal verifier`"
    )
    verify_nights: int = Field(30, ge=1, le=1000, description="days in which `waxseal verifier` verifies everything again")
    debug: bool = Field(False, description="1 shows the traceback of an error on the command line")

    @field_validator("keys", "allow_networks", "log_origin", "log_anchors")
    @classmethod
    def _can_be_read(cls, text: str, info: ValidationInfo) -> str:
        _READERS[str(info.field_name)](text)
        return text

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, url: str) -> str:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port and parts.path in ("", "/")
        if url and (not whole or parts.query or parts.fragment):
            raise ValueError("must be http://[user:password@]host:port, or https://")
        return url

    def fernet_keys(self) -> list[str]:
        """Give the keys, newest first, from the variable or else the file; an empty list when neither is set."""
        if self.keys or self.keys_file is None:
            return split_keys(self.keys)
        try:
            return split_keys(self.keys_file.read_text())
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{PREFIX}KEYS_FILE: {error}") from error


def load_settings(*needed: str) -> Settings:
    """Read the environment. Raises `Misconfigured`, naming each variable that is invalid, or needed and missing."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise Misconfigured(_faults(error)) from error
    require(settings, *needed)
    return settings


class _Given(Settings):
    """Settings of which the environment of this process says nothing."""

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, _settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_others: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given."""
        return (init_settings,)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings of another system, by name, whatever this process's environment says. Raises `Misconfigured`."""
    try:
        return _Given(**given)
    except ValidationError as error:
        raise Misconfigured(_faults(error)) from error


def require(settings: Settings, *needed: str) -> None:
    """Raise `Misconfigured` unless each of the `needed` settings has a value."""
    missing = [name for name in needed if not (settings.fernet_keys() if name == "keys" else getattr(settings, name))]
    if missing:
        names = ", ".join(PREFIX + name.upper() for name in missing)
        raise Misconfigured(f"{names}: not set; set it, or run `waxseal up` first (`waxseal settings` explains each)")


def described() -> list[tuple[str, str, str]]:
    """List every variable with its default and its meaning."""
    return [
        (PREFIX + name.upper(), "" if field.default is None else str(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def replace_environment(variables: Mapping[str, str]) -> None:
    """Give this process these environment variables, and no others."""
    os.environ.clear()
    os.environ.update(variables)


def environment() -> dict[str, str]:
    """Copy this process's environment: for child processes, and for secrets given as `env:NAME`."""
    return dict(os.environ)


def bare_environment() -> dict[str, str]:
    """Copy it without our own, AWS and OTEL variables: a process that parses untrusted messages needs no keys, no passwords."""
    return {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "AWS_", "OTEL_"))}


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """The variables of OpenTelemetry that we read ourselves; its SDK reads the others."""

    sampler: str
    argument: str


def tracing_settings() -> TracingSettings | None:
    """The settings of traces; None if none are wanted."""
    named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() for name in ("ENDPOINT", "TRACES_ENDPOINT"))
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    elsewhere = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    if not named or disabled or elsewhere:
        return None
    return TracingSettings(os.environ.get("OTEL_TRACES_SAMPLER", ""), os.environ.get("OTEL_TRACES_SAMPLER_ARG", ""))


def debug_wanted() -> bool:
    """Whether tracebacks are to be shown; works even when other settings are invalid."""
    return os.environ.get(f"{PREFIX}DEBUG", "").lower() in {"1", "true", "yes", "on"}


def split_keys(text: str) -> list[str]:
    """Split Fernet keys at commas and line ends. Raises `ValueError` for an invalid key, without showing it."""
    keys = [key.strip() for line in text.splitlines() for key in line.split(",") if key.strip()]
    for position, key in enumerate(keys, 1):
        if not _is_fernet(key):
            raise ValueError(f"key {position} is not a Fernet key (32 bytes in url-safe base64)")
    return keys


_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "keys": split_keys,
    "allow_networks": networks,
    "log_origin": read_origin,
    "log_anchors": read_anchors,
}


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())


def _is_fernet(key: str) -> bool:
    try:
        return len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False
