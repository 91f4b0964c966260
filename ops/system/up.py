"""`waxseal up`: the whole system on private servers in a data folder."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final

import click
import structlog

from ops.errors import OpsError
from ops.process_roles import CONSOLE, INGRESS, SUPERVISOR
from ops.runtime import log
from ops.runtime.redact import redact_text
from ops.servers.accounts import own_file
from ops.servers.binaries import find_prometheus
from ops.servers.child import Child, stop, wait_ready
from ops.servers.forks import preload
from ops.servers.lock import sole_owner
from ops.servers.ports import is_free
from ops.servers.private import PrivateServers
from ops.servers.prometheus import PROMETHEUS, Target, Watch, prometheus_child, prometheus_url
from ops.servers.state_file import check_path
from ops.servers.wal_archive import check_archive
from ops.settings import PREFIX, Settings
from ops.system.crash_loops import CrashLoops, EventWriter
from ops.system.prepare import prepare
from ops.system.roles import IMPORTED, PAGES, Post, base_url, console_url, worker_children
from ops.system.stack_file import FIRST, Stack, end_recorded
from ops.system.supervisor import Supervisor
from ops.system.unfinished_restore import check_restored
from ops.telemetry import probe_server, table
from ops.telemetry.disks import room
from ops.telemetry.exposition import EXPOSITION

SECRETS: Final = "endpoint-secrets"  # in the data folder
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0

_OURS: Final = Post(SUPERVISOR, SUPERVISOR, ())  # this process; it has probes and metrics as the others do

_log = structlog.get_logger()


class StopAsked(Exception):
    """A signal asked us to stop; raised at the next check, also while we wait for something."""


@dataclass
class StopRequests:
    """Whether a signal asked us to stop."""

    asked: bool = False

    def check(self) -> None:
        """Raise `StopAsked` when a stop was asked for."""
        if self.asked:
            raise StopAsked


@dataclass(frozen=True)
class Plan:
    """What to bring up, and where."""

    data: Path
    settings: Settings
    posts: Sequence[Post]
    config: Path | None = None
    observe: bool = False  # with a Prometheus of its own
    first_token: Callable[[str, Path | None], str | None] = lambda _database_url, _file: None


def up(plan: Plan) -> None:
    """Bring everything up, supervise it until a signal asks to stop, and leave nothing running.

    Raises `AlreadyRunning` when another supervisor has the folder, and other `OpsError`s when the system does not come up.
    """
    check_path(plan.data)
    check_restored(plan.data)
    if plan.settings.wal_archive is not None:
        check_archive(plan.settings.wal_archive, plan.data)
    if plan.observe:
        find_prometheus()  # before anything is started
    log.configure(plan.settings.log, plan.settings.log_level, "supervisor")
    with sole_owner(plan.data), _stop_requests() as requests:
        ended = end_recorded(plan.data)
        if ended:
            _log.info("leftovers_ended", processes=ended)
        servers = PrivateServers(plan.data, requests.check, plan.settings.wal_archive)
        try:
            _log.info("servers_starting", data=str(plan.data))
            preload(IMPORTED)  # while they start
            servers.start()
            _run(plan, servers, requests)
        except StopAsked:
            _log.info("stop_asked")
        finally:
            servers.stop()
            end_recorded(plan.data)
            _log.info("stopped")


def _run(plan: Plan, servers: PrivateServers, requests: StopRequests) -> None:
    prepared = prepare(servers, plan.settings)
    told = prepared.told
    if plan.config is not None:
        _apply(plan.config, plan.settings, servers, told, plan.data)
    requests.check()
    ports = _ports(plan, servers)
    workers = worker_children(plan.posts, ports, plan.settings, prepared.told_to, plan.data)
    stack = _stack(plan, servers, told, ports)
    token = plan.first_token(servers.database_url, None if sys.stdout.isatty() else plan.data / FIRST)
    if plan.observe:
        workers.append(_prometheus(plan, servers, stack, ports[PROMETHEUS]))
    everyone = [*servers.children, *workers]
    try:
        for worker in workers:
            worker.start()
        stack.keep(plan.data, everyone, ready=False)
        wait_ready(workers, _READY_SECONDS, requests.check)
        with (
            probes(plan.data, plan.settings.metrics_host, ports[SUPERVISOR]) as beat,
            closing(EventWriter(servers.database_url)) as events,
        ):
            stack.keep(plan.data, everyone, ready=True)
            _log.info("ready", ingress=stack.ingress_url, processes=len(everyone))
            _welcome(stack, plan.data, token)

            def interrupted() -> None:
                beat()
                requests.check()

            crash_loops = CrashLoops(events.write)
            Supervisor(everyone, lambda: stack.keep(plan.data, everyone, ready=True), crash_loops.ended).run(interrupted)
    finally:
        _log.info("workers_stopping")
        stop(workers, _STOP_SECONDS)


@contextmanager
def probes(data: Path, host: str, port: int) -> Iterator[Callable[[], None]]:
    """Serve the supervisor's own probes and metrics, with the disk of the data folder. Gives its heartbeat."""
    EXPOSITION.of(SUPERVISOR)
    table.DISK_FREE.labels("data").set_function(lambda: room(data).free)
    table.DISK_SIZE.labels("data").set_function(lambda: room(data).size)
    try:
        server = probe_server.serve(host, port, {})
    except OSError as error:
        raise OpsError(f"the supervisor cannot serve its metrics on port {port}: {error.strerror}") from error
    try:
        yield server.beat
    finally:
        server.close()
        EXPOSITION.of(None)


def _apply(config: Path, settings: Settings, servers: PrivateServers, told: Mapping[str, str], data: Path) -> None:
    from ops.config.apply import apply_file  # noqa: PLC0415 - only with --config
    from ops.config.summary import show  # noqa: PLC0415

    urls = {"database_url": servers.database_url, "amqp_url": servers.amqp_url, "blobs": told["blobs"]}
    urls["allow_networks"] = told["allow_networks"]
    keys = {"keys_file": Path(told["keys_file"])} if "keys_file" in told else {}
    difference = apply_file(config, settings.model_copy(update={**urls, **keys}))
    if difference.generated and not sys.stdout.isatty():
        _store_secrets(difference.generated, data / SECRETS)
        difference = replace(difference, generated={})
    show(difference)


def _store_secrets(generated: Mapping[str, str], path: Path) -> None:
    """Write secrets to a file of their own: output that is not a terminal is a log, which must not hold them."""
    before = path.read_text() if path.exists() else ""
    own_file(path, before + "".join(f"{endpoint}  {secret}\n" for endpoint, secret in generated.items()), None)
    click.echo(f"the secrets that were made for endpoints are in {path}: give each to its receiver, then delete the file")


def _ports(plan: Plan, servers: PrivateServers) -> dict[str, int]:
    """Choose the workers' ports: those of the last run, unless a setting asks for one."""
    names = [*(post.name for post in plan.posts), SUPERVISOR, *([PROMETHEUS] if plan.observe else [])]
    asked = {INGRESS: plan.settings.ingress_port}
    if CONSOLE in names:
        names.append(PAGES)
        asked[PAGES] = plan.settings.console_port
    default = {}
    for name, port in asked.items():
        variable = "ingress_port" if name == INGRESS else "console_port"
        if variable in plan.settings.model_fields_set and port != 0:
            if not (is_free(port) and servers.claims.take(port)):
                variable = (PREFIX + variable).upper()
                raise OpsError(f"{variable}: port {port} is in use; choose another, or unset it to get a free one")
            default[name] = port
        elif name not in servers.memory.ports:
            default[name] = port
    servers.memory.take_ports(names, servers.claims, default)
    return {name: servers.memory.ports[name] for name in names}


def _stack(plan: Plan, servers: PrivateServers, told: Mapping[str, str], ports: Mapping[str, int]) -> Stack:
    urls = {post.name: base_url(post, ports[post.name], plan.settings) for post in (*plan.posts, _OURS)}
    return Stack(
        ingress_url=urls.get(INGRESS, ""),
        console_url=console_url(ports[PAGES], plan.settings) if PAGES in ports else None,
        amqp_url=servers.amqp_url,
        database_url=servers.database_url,
        keys_file=told.get("keys_file", ""),
        blobs=told["blobs"],
        allow_networks=told["allow_networks"],
        log_files=told["log_files"],
        log_origin=told["log_origin"],
        metrics={name: f"{url}/metrics" for name, url in urls.items()},
        prometheus_url=prometheus_url(ports[PROMETHEUS]) if plan.observe else None,
    )


def _prometheus(plan: Plan, servers: PrivateServers, stack: Stack, port: int) -> Child:
    roles = {post.name: post.role for post in plan.posts}
    watch = Watch([Target(roles.get(name, name), url) for name, url in stack.metrics.items()])
    account = servers.memory.account(PROMETHEUS)
    return prometheus_child(servers.memory.folder / PROMETHEUS, port, watch, account, plan.data / "log" / "prometheus.log")


def _welcome(stack: Stack, data: Path, token: str | None) -> None:
    """Print where everything is; passwords and tokens on a terminal only, because any other output is a log."""
    if token is not None and not sys.stdout.isatty():
        token = f"in {data / FIRST}; log in with it, then delete the file"
    first = f"  its token  {token}   (admin for 90 days, not shown again)\n" if token is not None else ""
    watched = f"  alerts     {stack.prometheus_url}/alerts\n" if stack.prometheus_url else ""
    words = f"""
Waxseal is ready.
  webhooks   {stack.ingress_url}/in/TENANT/SOURCE
  console    {stack.console_url}
{first}  AMQP       {stack.amqp_url}   (exchange waxseal.in)
  database   {stack.database_url}
{watched}  all of it  {data / "stack.json"}; logs in {data / "log"}

Next: describe tenants, sources and endpoints in a file and run `waxseal apply FILE`.
Stop with Ctrl-C, or `waxseal down --data {data}`; `waxseal up --data {data}` resumes.
"""
    click.echo(words if sys.stdout.isatty() else redact_text(words))
    sys.stdout.flush()


@contextmanager
def _stop_requests() -> Iterator[StopRequests]:
    """While the block runs, note signals that ask to stop, instead of being ended by them."""
    requests = StopRequests()

    def note(_number: int, _frame: FrameType | None) -> None:
        requests.asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
