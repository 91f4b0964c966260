"""What a kind of mailbox is to all but its session: what may be configured of it, and where its tokens come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: A `MailboxSpec`, which is made of the kinds.
Said = Any


@dataclass(frozen=True, slots=True)
class MailboxKind:
    """One kind of mailbox. To add one: a file with such a value and a line in `schemas.config.mailbox_kinds`, and its session.

    The session is a file in `workers` and a line in `workers.mail.pull.mailbox_kinds`: the layers keep the two apart.

    `folders` are read when none are named. `problems` gives what is wrong with a mailbox of this kind in the file. `ports`: of
    a kind that is reached at a host, its port with TLS and without. `provider` gives its tokens, unless another is named;
    `scope` is what Microsoft is asked for when nothing is configured: to read, and to go on reading.
    """

    name: str
    folders: tuple[str, ...]
    problems: Callable[[Said], list[str]]
    ports: Mapping[bool, int] = field(default_factory=dict)
    provider: str | None = None
    scope: str = ""


def of_an_api(spec: Said, *useless: str) -> list[str]:
    """What is wrong with a mailbox behind an HTTP API, to which the keys `useless` mean nothing either."""
    found = [name for name in ("host", "port", "password", "ca", *useless) if getattr(spec, name) is not None]
    found += [] if spec.tls else ["tls: false"]
    problems = [f"{name} is of no use to kind {spec.kind}" for name in found]
    return problems if spec.oauth is not None else [*problems, f"kind {spec.kind} needs oauth"]
