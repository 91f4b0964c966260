"""The definition of a kind of mailbox, without its session: what may be configured, and where its tokens come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: A `MailboxSpec`, whose module imports the kinds.
Said = Any


@dataclass(frozen=True, slots=True)
class MailboxKind:
    """One kind of mailbox. To add one: a file with such a value and a line in `schemas.config.mailbox_kinds`, and its session.

    The session is a file in `workers` and a line in `workers.mail.pull.mailbox_kinds`, because schemas do no I/O.

    `folders` are the default. `problems` returns what is wrong with a mailbox of this kind in the file. `ports`: for a kind
    with a host, the default ports, by whether TLS is used. `provider` is the default provider of tokens; `scope` the default
    OAuth scope for Microsoft: to read, and offline access for the refresh token.
    """

    name: str
    folders: tuple[str, ...]
    problems: Callable[[Said], list[str]]
    ports: Mapping[bool, int] = field(default_factory=dict)
    provider: str | None = None
    scope: str = ""


def of_an_api(spec: Said, *useless: str) -> list[str]:
    """What is wrong with a mailbox behind an HTTP API; `useless` are further keys that such a mailbox does not take."""
    found = [name for name in ("host", "port", "password", "ca", *useless) if getattr(spec, name) is not None]
    found += [] if spec.tls else ["tls: false"]
    problems = [f"{name} is of no use to kind {spec.kind}" for name in found]
    return problems if spec.oauth is not None else [*problems, f"kind {spec.kind} needs oauth"]
