"""Compares a configuration file with the database: what applying it will change."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from ops.runtime.redact import redact_text
from schemas.catalog import Catalog
from schemas.config.endpoint import EndpointSpec
from schemas.config.file import ConfigFile, SourceSpec, TenantSpec
from schemas.config.mailbox import MailboxSpec
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.endpoint import Endpoint
from schemas.mailbox import Mailbox, MailboxState
from schemas.source import Source

Action = Literal["created", "changed", "removed", "unchanged", "kept"]
Item = Literal["tenant", "source", "endpoint", "mailbox"]
Mailboxes = Mapping[tuple[str, str], tuple[Mailbox, MailboxState]]

_NOT_COMPARED = ("id", "state")
_CREDENTIALS = ("username", "password", "oauth")
_PLACE_OF_MAIL = ("kind", "host", "port", "username", "api_url")
_NO_MAILBOXES: Mailboxes = {}


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one tenant, source, endpoint or mailbox. `before` and `after` hold decrypted secrets: not in the repr."""

    action: Action
    item: Item
    tenant: str
    name: str
    details: tuple[str, ...] = ()
    before: Source | Endpoint | Mailbox | None = field(default=None, repr=False)
    after: Source | Endpoint | Mailbox | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    activate: bool = False  # enables a disabled endpoint; ends `needs_reauthorization` of a mailbox
    elsewhere: bool = False  # a mailbox at another place: the positions up to which it was read do not hold there

    @property
    def title(self) -> str:
        """Its full name: `acme` or `acme/billing`."""
        return self.tenant if self.item == "tenant" else f"{self.tenant}/{self.name}"


def differences(
    config: ConfigFile, now: Catalog, mailboxes: Mailboxes = _NO_MAILBOXES, *, enable: bool = False
) -> Iterator[Change]:
    """A change for everything that the file names, unchanged things included.

    A disabled endpoint becomes active when its URL or other target changes, or with `enable`; a mailbox that needs
    reauthorization, when its credentials change.
    """
    for tenant in config.tenants:
        yield _tenant(tenant, now)
    for source in config.sources:
        yield _source(source, now.sources.get((source.tenant, source.name)))
    known = {(endpoint.tenant, endpoint.name): endpoint for endpoint in now.endpoints.values()}
    for endpoint in config.endpoints:
        yield _endpoint(endpoint, known.get((endpoint.tenant, endpoint.name)), enable=enable)
    for mailbox in config.mailboxes:
        yield _mailbox(mailbox, mailboxes.get((mailbox.tenant, mailbox.name)))


def taken_names(config: ConfigFile, now: Catalog) -> Iterator[str]:
    """An error for each mailbox of the file that exists as another source, or the reverse: neither can become the other."""
    specs = [(source, False) for source in config.sources] + [(mailbox, True) for mailbox in config.mailboxes]
    for spec, as_mailbox in specs:
        there = now.sources.get((spec.tenant, spec.name))
        if there is not None and (there.kind in MAIL_KINDS) is not as_mailbox:
            yield f"{spec.tenant}/{spec.name} is a {'source' if as_mailbox else 'mailbox'} already: choose another name"


def unnamed(config: ConfigFile, now: Catalog, in_use: Set[str], mailboxes: Mailboxes = _NO_MAILBOXES) -> Iterator[Change]:
    """A change for everything that the file does not name: what pruning does to it."""
    tenants = {tenant.name for tenant in config.tenants}
    sources = {(source.tenant, source.name) for source in config.sources}
    endpoints = {(endpoint.tenant, endpoint.name) for endpoint in config.endpoints}
    named = {(mailbox.tenant, mailbox.name) for mailbox in config.mailboxes}
    for source in now.sources.values():
        if source.kind not in MAIL_KINDS and (source.tenant, source.name) not in sources:
            yield Change("removed", "source", source.tenant, source.name, before=source)
    for tenant, name in mailboxes:
        if (tenant, name) not in named:
            yield Change("removed", "mailbox", tenant, name, before=mailboxes[tenant, name][0])
    for endpoint in now.endpoints.values():
        if endpoint.state != "removed" and (endpoint.tenant, endpoint.name) not in endpoints:
            yield Change("removed", "endpoint", endpoint.tenant, endpoint.name, before=endpoint)
    for name in now.tenants:
        if name in in_use and name not in tenants:
            why = "it has entries in the ledger, which are kept for ever, or had sources until now"
            yield Change("kept", "tenant", name, name, (why,))
        elif name not in tenants:
            yield Change("removed", "tenant", name, name)


def _tenant(spec: TenantSpec, now: Catalog) -> Change:
    if spec.name not in now.tenants:
        return Change("created", "tenant", spec.name, spec.name, settings={"retention": spec.retention})
    before, after = now.retentions.get(spec.name), spec.retention
    details = () if before == after else (f"retention: {_shown(before)} -> {_shown(after)}",)
    return Change(_action(now, details), "tenant", spec.name, spec.name, details, settings={"retention": after})


def _source(spec: SourceSpec, before: Source | None) -> Change:
    after = spec.source()
    details = (after.kind,) if before is None else tuple(_changes(before, after))
    return Change(_action(before, details), "source", spec.tenant, spec.name, details, before, after, spec.settings())


def _endpoint(spec: EndpointSpec, before: Endpoint | None, *, enable: bool) -> Change:
    settings = spec.terms()
    signed = spec.reached_by.signed
    secrets = tuple(spec.secrets) if spec.secrets is not None else before.secrets if before and signed else ()
    after = spec.endpoint(before.id if before else 0, secrets)
    if before is None or before.state == "removed":
        details: tuple[str, ...] = (f"to {redact_text(after.url)}" if after.url else f"by {after.transport}",)
        details += () if before is None else ("active again",)
        return Change("created", "endpoint", spec.tenant, spec.name, details, before, after, settings, activate=True)
    details = tuple(_changes(before, after))
    activate = before.state == "disabled" and (enable or _place(before) != _place(after))
    if before.state == "disabled":
        details += ("active again",) if activate else ()
        after = replace(after, state="active" if activate else "disabled")
    return Change(_action(before, details), "endpoint", spec.tenant, spec.name, details, before, after, settings, activate)


def _mailbox(spec: MailboxSpec, found: tuple[Mailbox, MailboxState] | None) -> Change:
    before, state = found or (None, "active")
    after = spec.mailbox(before.id if before else 0)
    if before is None:
        return Change("created", "mailbox", spec.tenant, spec.name, (after.kind,), after=after, activate=True)
    details = tuple(_changes(before, after))
    authorised = any(getattr(before, name) != getattr(after, name) for name in _CREDENTIALS)
    elsewhere = any(getattr(before, name) != getattr(after, name) for name in _PLACE_OF_MAIL)
    details += ("active again",) if authorised and state == "needs_reauthorization" else ()
    return Change(
        _action(before, details),
        "mailbox",
        spec.tenant,
        spec.name,
        details,
        before,
        after,
        activate=authorised,
        elsewhere=elsewhere,
    )


def _action(before: object, details: tuple[str, ...]) -> Action:
    return "created" if before is None else "changed" if details else "unchanged"


def _place(endpoint: Endpoint) -> tuple[Any, ...]:
    return endpoint.url, endpoint.target


def _changes(before: Any, after: Any, of: str = "") -> Iterator[str]:
    """The fields that differ; of fields that may hold a secret, only their names."""
    for each in fields(after):
        old, new = getattr(before, each.name), getattr(after, each.name)
        if each.name in _NOT_COMPARED or old == new:
            continue
        if not each.repr:
            yield f"{of}{each.name} changed"
        elif is_dataclass(old) and type(old) is type(new):
            part = (
                after.transport if isinstance(after, Endpoint) else each.name
            )  # a target has the transport's name, as in the file
            yield from _changes(old, new, f"{part}.")
        elif not is_dataclass(old) and not is_dataclass(new):  # otherwise the transport differs, which is a change of its own
            yield f"{of}{each.name}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return redact_text(f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value))
