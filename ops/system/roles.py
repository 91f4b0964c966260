"""The worker processes, one post each: the command, its port, and whether it is ready."""

import http.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ops.process_roles import CONSOLE, INGRESS, SCALED, WORKERS
from ops.servers.child import Child
from ops.settings import PREFIX, Settings, environment

#: What the processes import, most of it on their way to their first round of work.
IMPORTED: Final = (
    "ops.cli",
    "ops.admin.read_session",
    "ops.runtime.schema_check",
    "ops.system.stack_file",
    "workers.console.worker",
    "workers.delivery.worker",
    "workers.eraser.worker",
    "workers.ingest.worker",
    "workers.ingress.worker",
    "workers.mail.idle.worker",
    "workers.mail.pull.worker",
    "workers.relay.worker",
    "workers.sealer.worker",
    "workers.sequencer.worker",
    "workers.verifier.worker",
)
PAGES: Final = "console-pages"  # names the console's second port, beside that of its probes
_ANY_ADDRESS: Final = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True)
class Post:
    """One process of a role; several processes of one role have different names. `forked`: see `Child`."""

    name: str
    role: str
    command: tuple[str, ...]
    forked: bool = False


def full_crew(workers: int = 1) -> list[Post]:
    """List the posts of the whole system, with `workers` ingest processes and as many deliver processes."""
    return [_post(role, number) for role in WORKERS for number in range(1, (workers if role in SCALED else 1) + 1)]


def _post(role: str, number: int) -> Post:
    name = role if number == 1 else f"{role}-{number}"
    return Post(name, role, (role,), forked=True)


def base_url(post: Post, port: int, settings: Settings) -> str:
    """Give the address that serves the process's probes and metrics; the ingress has them on its own port."""
    return _url(settings.ingress_host if post.role == INGRESS else settings.metrics_host, port)


def console_url(port: int, settings: Settings) -> str:
    """Give the address of the console's pages."""
    return settings.console_url or _url(settings.console_host, port)


def _url(host: str, port: int) -> str:
    return f"http://{'127.0.0.1' if host in _ANY_ADDRESS else host}:{port}"


def worker_children(
    posts: Sequence[Post], ports: Mapping[str, int], settings: Settings, told_to: Callable[[str], Mapping[str, str]], data: Path
) -> list[Child]:
    """Describe the process of each post; it inherits our environment, with what its role is told and its port added."""
    return [_child(post, ports, settings, told_to(post.role), data) for post in posts]


def _child(post: Post, ports: Mapping[str, int], settings: Settings, told: Mapping[str, str], data: Path) -> Child:
    port = ports[post.name]
    own = {"ingress_port" if post.role == INGRESS else "metrics_port": str(port)}
    if post.role == CONSOLE:
        own["console_port"] = str(ports[PAGES])
    variables = {PREFIX + name.upper(): value for name, value in {**told, **own}.items()}
    address = urlsplit(base_url(post, port, settings)).netloc
    return Child(
        name=post.name,
        role=post.role,
        command=post.command,
        forked=post.forked,
        environment={**environment(), **variables, "PYTHONUNBUFFERED": "1"},
        log=data / "log" / f"{post.name}.log",
        folder=Path.cwd(),
        ready=lambda: _says_yes(address),
    )


def _says_yes(address: str) -> bool:
    """Whether the process says that it is ready; asked many times while it starts, which must not take the CPU it needs."""
    connection = http.client.HTTPConnection(address, timeout=3)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
