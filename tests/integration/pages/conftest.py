"""One seeded system for the module, with every process that its pages show, a console, and a browser."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy import Engine

from ops.admin.access import sessions, tokens
from ops.runtime.db import make_engine
from ops.servers.private import PrivateServers
from schemas.access import Role
from support.console import seeding
from support.console.watched import Watch, chromium
from support.net.ports import free_port
from support.net.sink import Sink
from support.waiting import wait_for
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY
from workers.amqp.topology import declare
from workers.console.access.principals import COOKIE

LogIn = Callable[..., None]
Open = Callable[..., tuple[Page, Watch]]
Visit = Callable[..., Page]

#: A page that is left refreshes itself no more. One whose clock stands still has numbers of its own, and need not be told.
REST = "() => { for (let last = setTimeout(() => {}); last > 0 && last < 1e6; last--) clearTimeout(last); }"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for a picture of each page of the console")


@pytest.fixture(scope="module")
def seeded(servers: PrivateServers, shared_database: Any, shared_start: Any) -> Iterator[Any]:
    """The database of a system whose processes run, once all of its traffic is settled."""
    sink = Sink()
    sink.start()
    parameters = pika.URLParameters(servers.amqp_url)
    parameters.heartbeat = 0  # nobody answers while a browser is waited for
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    declare(channel)
    for method, arguments in DELIVER_TOPOLOGY:
        getattr(channel, method)(**arguments)
    channel.confirm_delivery()
    seeding.configure(shared_database, sink)
    for command in ("ingest", "relay", "deliver", "sequencer", "sealer"):
        shared_start(command, mail_dns=False)
    seeding.send(channel)
    seeding.settled(shared_database)
    yield shared_database
    connection.close()
    sink.stop()


@pytest.fixture(scope="module")
def console(seeded: Any, shared_start: Any) -> str:
    """The address of a console's process, once it has indexed what is there."""
    port = free_port()
    told = {"console_port": port, "console_environment": "TEST_*", "console_share": 0, "port": 0}
    shared_start("console", database_url=seeded.console_url, **told)
    count = "SELECT count(*) FROM event_search"
    wait_for(lambda: seeded.rows(count)[0][0] >= seeding.EVENTS, 60)
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def acts(seeded: Any) -> Iterator[Engine]:
    engine = make_engine(seeded.console_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def token(acts: Engine) -> Callable[..., str]:
    """Makes a token; returns its secret."""

    def make(role: Role = "admin", tenant: str | None = None, who: str = "ann") -> str:
        return tokens.new(acts, who=who, role=role, tenant=tenant, lasts=timedelta(hours=1), by="test")[1]

    return make


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def log_in(acts: Engine, token: Callable[..., str]) -> LogIn:
    """Logs a browser in, now: contents are shown for some minutes after a login. The form has tests of its own."""

    def log_in(context: BrowserContext, role: Role = "admin", tenant: str | None = None) -> None:
        value = sessions.begin_by_token(acts, token(role, tenant), sessions.Visitor("127.0.0.1", "a test"))
        assert value is not None
        context.add_cookies([{"name": COOKIE, "value": value, "domain": "127.0.0.1", "path": "/", "secure": True}])

    return log_in


@pytest.fixture(scope="module")
def opened(chrome: Browser, console: str) -> Iterator[Open]:
    """Opens a page, and watches it. The same again for the same uses and options: a new one has a process of its own."""
    kept: dict[str, tuple[Page, Watch]] = {}

    def open_(use: object, **options: Any) -> tuple[Page, Watch]:
        kind = repr((use, sorted(options.items())))
        if kind not in kept:
            context = chrome.new_context(base_url=console, reduced_motion="reduce", **options)
            context.set_default_timeout(20_000)
            watch = Watch(context, console)
            kept[kind] = context.new_page(), watch
        return kept[kind]

    yield open_
    for page, _ in kept.values():
        page.context.close()


@pytest.fixture(scope="module")
def desk(opened: Open, log_in: LogIn) -> tuple[Page, Watch]:
    """One page of an admin, for looking at everything, and its watch."""
    page, watch = opened("desk")
    log_in(page.context)
    return page, watch


@pytest.fixture
def visit(opened: Open, log_in: LogIn) -> Iterator[Visit]:
    """Gives a page to one who is logged in; at the end, nothing that is watched for has happened.

    Each page of a test is another person's. The tests that follow have the same pages, but for those of another `use`.
    """
    given: list[tuple[Page, Watch, int]] = []

    def give(role: Role = "admin", tenant: str | None = None, *, known: bool = True, use: str = "", **options: Any) -> Page:
        page, watch = opened((use, len(given)), **options)
        given.append((page, watch, len(watch.seen)))
        page.context.clear_cookies()
        if known:
            log_in(page.context, role, tenant)
        return page

    yield give
    for page, _, _ in given:
        page.evaluate(REST)
    assert [] == [each for _, watch, before in given for each in watch.seen[before:]]
