"""Reads the configuration file: everything that is wrong with it at once, each with its line."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ops.errors import Misconfigured
from ops.tls import client_context
from ops.yaml import Document, Location
from pipeline import kinds
from pipeline.filters import compile_filter
from pipeline.rules import check_rule
from pipeline.template import check_template
from schemas.config_endpoint import EndpointSpec
from schemas.config_file import ConfigFile, SourceSpec, TenantSpec
from schemas.config_mailbox import MailboxSpec
from schemas.config_values import Checks

_LARGEST_SECRET: Final = 64 * 1024  # characters
_ITEMS: Final[Mapping[str, type[BaseModel]]] = {
    "tenants": TenantSpec,
    "sources": SourceSpec,
    "endpoints": EndpointSpec,
    "mailboxes": MailboxSpec,
}
_EXPECTED: Final = {
    "string_type": "must be text; put it in quotes",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping, as {name: acme}",
    "mapping_type": "must be a mapping",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
}


@dataclass(frozen=True, order=True)
class Fault:
    """Something wrong with the file."""

    line: int
    where: str
    what: str


class BadConfig(Misconfigured):
    """The file cannot be used; one line of text per fault."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(f"{path}:{f.line}: {f.where + ': ' if f.where else ''}{f.what}" for f in self.faults))


def read_config(path: Path, environment: Mapping[str, str]) -> ConfigFile:
    """What the file says, every secret resolved: `env:` from `environment`, `file:` from the file's own folder.

    Raises `BadConfig` with every fault that there is.
    """
    try:
        document = Document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if document.error is not None:
        raise BadConfig(path, [Fault(*document.error)])
    faults = [Fault(document.line(loc), _path(loc), what) for loc, what in _names(document.content)]
    known = (*kinds.KINDS, kinds.AMQP)
    secret = partial(resolved, environment, path.parent)
    checks = Checks(
        known, check_rule, compile_filter, partial(_one_line, secret), secret, client_context, check_template, kinds.check
    )
    try:
        config = ConfigFile.model_validate(document.content, context=checks)
    except ValidationError as error:
        faults += [Fault(document.line(each["loc"]), *_told(each)) for each in error.errors(include_input=False)]
    if faults:
        raise BadConfig(path, faults)
    return config


def _names(content: dict[str, Any]) -> Iterator[tuple[Location, str]]:
    """Names that occur twice, and tenants that are named but not there; in the raw content, whatever else is wrong."""
    tenants = {name for _, item in _items(content, "tenants") if isinstance(name := item.get("name"), str)}
    sources: set[tuple[str, str]] = set()  # a mailbox is one
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


def _items(content: dict[str, Any], section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    listed = content.get(section)
    for index, item in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(item, dict):
            yield index, item


def resolved(environment: Mapping[str, str], folder: Path, text: str) -> str:
    """What `env:NAME`, `file:PATH` or the text itself holds."""
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
    """Where and what, in the words of someone who writes such a file."""
    loc, kind = error["loc"], error["type"]
    if kind == "missing":
        return _path(loc[:-1]), f"needs {loc[-1]}"
    if kind == "extra_forbidden":
        return _path(loc[:-1]), f"unknown key {str(loc[-1])!r:.80}{_meant(loc)}"
    if kind == "value_error":
        return _path(loc), error["msg"].removeprefix("Value error, ")
    return _path(loc), _EXPECTED.get(kind, error["msg"][:1].lower() + error["msg"][1:])


def _meant(loc: Location) -> str:
    model = ConfigFile if len(loc) == 1 else _ITEMS.get(str(loc[0])) if len(loc) == 3 else None
    close = get_close_matches(str(loc[-1]), model.model_fields, 1) if model else []
    return f"; did you mean {close[0]}?" if close else ""


def _path(loc: Location) -> str:
    """A location as it is read: `endpoints[2].retry[0]`."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc if step != "[key]"]
    return "".join(parts).removeprefix(".")
