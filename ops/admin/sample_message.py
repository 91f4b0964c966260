"""A message to test a source with: a sample or a given body, signed as the source's sender would sign it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson

from ops.admin.read_session import open_engine, snapshot
from ops.errors import OpsError
from ops.runtime.vault import Vault
from ops.settings import Settings
from ops.system.stack_file import read_stack
from pipeline.formats.forms import FORM
from pipeline.sources import AMQP, KINDS, PATH, Unsignable, check
from pipeline.sources.kind import JSON
from pipeline.sources.samples import sample
from pipeline.store.config import catalog
from schemas.source import Source

MASK: Final = "***"
_PRIVATE: Final = "whsk_"  # prefix of a sender's private key, which no source holds
_ANYWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104 - wildcard addresses: one can listen on them, but not connect to them


@dataclass(frozen=True, slots=True)
class Own:
    """What replaces parts of the sample. `content_type` is that of `body`; if it is None, it is guessed from `body`."""

    id: str | None = None
    body: bytes | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A signed message. `shown` are its headers with secrets masked."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    shown: Mapping[str, str]


def configured(settings: Settings, tenant: str, name: str) -> Source:
    """The source as configured, its secrets decrypted. Raises `OpsError`, which lists the known names, if there is none."""
    with open_engine(settings) as engine, snapshot(engine) as conn:
        sources = catalog.load(conn, Vault(settings.fernet_keys()).decrypt).sources
    found = sources.get((tenant, name))
    if found is None:
        names = ", ".join(f"{of} {each}" for of, each in sorted(sources)[:50])
        raise OpsError(f"there is no source {tenant} {name}; there are: {names or 'none yet, `waxseal apply FILE` makes them'}")
    if found.kind == AMQP:
        raise OpsError(f"{name} is of kind amqp: publish to the exchange waxseal.in with the routing key {tenant}.{name}")
    return found


def by_hand(kind: str, secrets_: tuple[str, ...], options: Mapping[str, str], url: str) -> Source:
    """A source that is not in the database: its kind, secrets and options are given. Raises `OpsError` if they are invalid."""
    if kind not in KINDS:
        raise OpsError(f"nothing can be posted to a source of kind {kind!r:.80}; known are {', '.join(KINDS)}")
    source = Source("by-hand", "sample", kind, secrets_, options=KINDS[kind].posted_to(options, url))
    problems = [] if any(secret.startswith(_PRIVATE) for secret in secrets_) else check(source)
    if problems:
        raise OpsError("; ".join(problems))
    return source


def address(data: Path, settings: Settings, source: Source) -> str:
    """The URL that takes the source's messages: at the ingress of the settings, or of the private system in `data`."""
    known = read_stack(data) or {}
    said = settings.model_fields_set & {"ingress_host", "ingress_port"}
    host = "127.0.0.1" if settings.ingress_host in _ANYWHERE else settings.ingress_host
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.ingress_port}"
    if not said and known.get("database_url") == settings.database_url:
        base = known["ingress_url"].rstrip("/")
    return f"{base}/in/{source.tenant}/{source.name}"


def message(source: Source, url: str, own: Own, now: datetime) -> Trial:
    """The message, signed with the source's first secret. Raises `OpsError` if it cannot be signed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OpsError(f"{url!r:.200} is not an http:// or https:// URL")
    headers, body = sample(source, own.id or secrets.token_hex(8), now)
    if own.body is not None:
        body = own.body
        headers["content-type"] = own.content_type or _guessed(body, headers["content-type"])
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        signed = KINDS[source.kind].sign(source, {**headers, PATH: path}, body, now)
    except Unsignable as error:
        raise OpsError(str(error)) from None
    path = signed.pop(PATH, path)
    headers |= signed
    shown = headers | {name: _masked(value, source.secrets) for name, value in signed.items()}
    return Trial(f"{parts.scheme}://{parts.netloc}{path}", headers, body, shown)


def described(trial: Trial) -> str:
    """The request as it would be sent, with secrets masked."""
    parts = urlsplit(trial.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = {"host": parts.netloc, **trial.shown, "content-length": str(len(trial.body))}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), ""]
    try:
        shown = trial.body.decode()
    except UnicodeDecodeError:
        shown = f"({len(trial.body)} bytes that are not text)"
    return "\n".join([*lines, shown])


def _guessed(body: bytes, usual: str) -> str:
    try:
        orjson.loads(body)
    except ValueError:
        return usual if usual == FORM else "application/octet-stream"
    return JSON


def _masked(value: str, secrets_: tuple[str, ...]) -> str:
    for secret in secrets_:
        value = value.replace(secret.encode().decode("latin-1"), MASK)
    return value
