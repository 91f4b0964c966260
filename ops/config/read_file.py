"""Reads the configuration file, and reports all of its faults at once, each with its line."""

import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ops.config.likely_mistakes import likely_mistakes
from ops.config.yaml import Document, Location
from ops.errors import Misconfigured
from ops.runtime.tls import client_context
from pipeline import sources as source_kinds
from pipeline.delivery.addresses import Network
from pipeline.delivery.filters import compile_filter, names_in, why_no_name
from pipeline.delivery.template import check_template
from pipeline.formats.extraction import check_rule
from schemas.config.endpoint import EndpointSpec
from schemas.config.file import ConfigFile, SourceSpec, TenantSpec
from schemas.config.mailbox import MailboxSpec, OAuthSpec
from schemas.config.transports import TRANSPORTS
from schemas.config.values import Checks

_LARGEST_FILE: Final = 16 * 1024 * 1024  # bytes
_LARGEST_SECRET: Final = 64 * 1024  # characters
_ITEMS: Final[Mapping[str, type[BaseModel]]] = {
    "tenants": TenantSpec,
    "sources": SourceSpec,
    "endpoints": EndpointSpec,
    "mailboxes": MailboxSpec,
}
_TARGETS: Final = {each.key: each.form for each in TRANSPORTS.values() if each.target is not None}
_PARTS: Final[Mapping[str, type[BaseModel]]] = {**_ITEMS, **_TARGETS, "oauth": OAuthSpec}
_EXPECTED: Final = {
    "string_type": "must be text; put it in quotes",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping, as {name: acme}",
    "mapping_type": "must be a mapping",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "invalid_key": "has a key that is not text; put it in quotes",
}


@dataclass(frozen=True, order=True)
class Fault:
    """A fault in the file, at a line; `where` is its location as `_path` writes it."""

    line: int
    where: str
    what: str

    def told(self, path: Path | None) -> str:
        """The fault in one line, which names the file if that has a path."""
        place = f"{path}:{self.line}" if path else f"line {self.line}"
        text = f"{place}: {self.where + ': ' if self.where else ''}{self.what}"
        return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class BadConfig(Misconfigured):
    """The file is invalid; its text has one line for each fault."""

    def __init__(self, path: Path | None, faults: list[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(fault.told(path) for fault in self.faults))


@dataclass(frozen=True)
class ConfigRead:
    """A valid configuration file, with the lines of its parts. An upload has no path."""

    path: Path | None
    config: ConfigFile
    document: Document = field(repr=False)

    def warnings(self, allowed: Sequence[Network], *, by_proxy: bool) -> list[str]:
        """Likely mistakes, each with its line; `allowed` and `by_proxy` as in `ops.config.likely_mistakes`."""
        found = likely_mistakes(self.config, allowed, by_proxy=by_proxy)
        faults = sorted({Fault(self.document.line(each.at), _path(each.at), each.what) for each in found})
        return [fault.told(self.path) for fault in faults]


def read_config(path: Path, environment: Mapping[str, str]) -> ConfigRead:
    """The configuration, every secret resolved: `env:` from `environment`, `file:` relative to the file's folder.

    `-` is standard input; its folder is the current one. Raises `Misconfigured` if the file cannot be read, and `BadConfig`
    with all faults of its content.
    """
    standard_input = path == Path("-")
    path = Path("standard input") if standard_input else path
    try:
        text = _decoded(sys.stdin.buffer.read(_LARGEST_FILE + 1) if standard_input else _bytes_of(path))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return _checked(path, text, partial(resolved, environment, path.parent))


def read_upload(raw: bytes, environment: Mapping[str, str]) -> ConfigRead:
    """As `read_config`, for a file that somebody sent: it may name no other file, which would be one of this machine."""
    try:
        text = _decoded(raw)
    except ValueError as error:
        raise Misconfigured(f"cannot read the upload: {error}") from error
    return _checked(None, text, partial(_sent, environment))


def _sent(environment: Mapping[str, str], text: str) -> str:
    if text.startswith("file:"):
        raise ValueError("names a file, which an upload may not: apply it by `waxseal apply` on the machine that has the file")
    return resolved(environment, Path(), text)


def _checked(path: Path | None, text: str, secret: Callable[[str], str]) -> ConfigRead:
    document = Document(text)
    if document.error is not None:
        raise BadConfig(path, [Fault(*document.error)])
    faults = [
        Fault(document.line(loc), _path(loc), what) for loc, what in (*_names(document.content), *_filters(document.content))
    ]
    checks = Checks(
        source_kinds.NAMES,
        check_rule,
        compile_filter,
        partial(_one_line, secret),
        secret,
        client_context,
        check_template,
        source_kinds.check,
    )
    try:
        config = ConfigFile.model_validate(document.content, context=checks)
    except ValidationError as error:
        faults += [Fault(document.line(each["loc"]), *_told(each)) for each in error.errors(include_input=False)]
    if faults:
        raise BadConfig(path, faults)
    return ConfigRead(path, config, document)


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST_FILE + 1)


def _decoded(raw: bytes) -> str:
    """The text of a file in UTF-8, or with a byte order mark in UTF-16, as PowerShell writes it. Raises ValueError."""
    if len(raw) > _LARGEST_FILE:
        raise ValueError(f"it has more than {_LARGEST_FILE} bytes")
    marked = raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    if b"\x00" in raw[:4] and (not marked or b"\x00\x00" in raw[:4]):
        raise ValueError("it is not in UTF-8: save it in that encoding")
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in UTF-8: save the file in that encoding") from None


def _names(content: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Names that occur twice, and references to missing tenants. Reads the raw content, so it works beside other faults."""
    tenants = {name for _, item in _items(content, "tenants") if isinstance(name := item.get("name"), str)}
    sources: set[tuple[str, str]] = set()  # shared with mailboxes, which are sources
    for section in ("tenants", "sources", "endpoints", "mailboxes"):
        seen: set[tuple[str, str]] = sources if section in ("sources", "mailboxes") else set()
        for index, item in _items(content, section):
            tenant, name = item.get("tenant"), item.get("name")
            key = (str(tenant), str(name))
            if isinstance(name, str) and key in seen:
                yield (section, index, "name"), f"{name!r:.80} is there twice"
            seen.add(key)
            if isinstance(tenant, str) and tenant not in tenants:
                yield (section, index, "tenant"), f"tenant {tenant!r:.80} is not among the tenants of this file"


def _filters(content: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Filters on attributes that no event can have."""
    for index, item in _items(content, "endpoints"):
        for at, name in names_in(item.get("filter"), ("endpoints", index, "filter")):
            if what := why_no_name(name):
                yield at, what


def _items(content: dict[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    listed = content.get(section)
    for index, item in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(item, dict):
            yield index, item


def resolved(environment: Mapping[str, str], folder: Path, text: str) -> str:
    """The secret: the content of `env:NAME` or `file:PATH`, or else the text itself. Raises ValueError."""
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        secret = environment.get(name, "")
        missing = f"the environment variable {name} is not set"
    elif text.startswith("file:"):
        secret, missing = _from_file(folder / text.removeprefix("file:"))
    else:
        secret, missing = text, "must not be empty"
    if not secret:
        raise ValueError(missing)
    return secret


def _one_line(resolve: Callable[[str], str], text: str) -> str:
    secret = resolve(text)
    if not secret.isprintable():
        raise ValueError("holds something that is not printable text")
    return secret


def _from_file(path: Path) -> tuple[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LARGEST_SECRET).strip(), f"the file {path} is empty"
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the secret in {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _told(error: Any) -> tuple[str, str]:
    """Where and what, in terms of the file and not of pydantic."""
    loc, kind = error["loc"], error["type"]
    if kind == "missing":
        return _path(loc[:-1]), f"needs {loc[-1]}"
    if kind == "extra_forbidden":
        return _path(loc[:-1]), f"unknown key {str(loc[-1])!r:.80}{_meant(loc)}"
    if kind == "value_error":
        return _path(loc), error["msg"].removeprefix("Value error, ")
    return _path(loc), _EXPECTED.get(kind, error["msg"][:1].lower() + error["msg"][1:])


def _meant(loc: Location) -> str:
    """What is allowed in place of the unknown key: the key most like it, or all of them."""
    known = _keys_at([step for step in loc[:-1] if isinstance(step, str)])
    close = get_close_matches(str(loc[-1]), known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return meant if close and len(loc) < 4 else f"{meant}{'' if meant else ';'} known are: {', '.join(known)}" if known else ""


def _keys_at(steps: Sequence[str]) -> list[str]:
    """The keys allowed in the part of the file that the steps lead to."""
    model: type[BaseModel] | None = ConfigFile
    for step in steps:
        model = _PARTS.get(step) if model is not None else None
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _path(loc: Location) -> str:
    """A location as text: `endpoints[2].retry[0]`."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc if step != "[key]"]
    return "".join(parts).removeprefix(".")
