"""One seeded system for the module, with every process that its pages show, a console, and a browser."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy import Engine

from ops.admin.access import tokens
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

Login = Callable[..., Any]


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
def logged_in(chrome: Browser, console: str, token: Callable[..., str]) -> Callable[..., Any]:
    """The state of a browser after a login, made once for each role."""
    kept: dict[tuple[Role, str | None], Any] = {}

    def state(role: Role = "admin", tenant: str | None = None) -> Any:
        if (role, tenant) not in kept:
            context = chrome.new_context()
            page = context.new_page()
            page.goto(f"{console}/login")
            page.get_by_label("Token").fill(token(role, tenant))
            page.get_by_role("button", name="Log in").click()
            page.wait_for_url(lambda url: "/login" not in url)
            kept[role, tenant] = context.storage_state()
            context.close()
        return kept[role, tenant]

    return state


@pytest.fixture(scope="module")
def desk(chrome: Browser, console: str, logged_in: Callable[..., Any]) -> Iterator[tuple[Page, Watch]]:
    """One page of an admin, for looking at everything, and its watch."""
    context = chrome.new_context(base_url=console, storage_state=logged_in(), reduced_motion="reduce")
    watch = Watch(context, console)
    yield context.new_page(), watch
    context.close()


@pytest.fixture
def visit(chrome: Browser, console: str, logged_in: Callable[..., Any]) -> Iterator[Login]:
    """Opens a page of one who is logged in; at the end, nothing that is watched for has happened."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def open_(role: Role = "admin", tenant: str | None = None, *, known: bool = True, **options: Any) -> Any:
        state = logged_in(role, tenant) if known else None
        context = chrome.new_context(base_url=console, storage_state=state, **{"reduced_motion": "reduce", **options})
        context.set_default_timeout(20_000)
        opened.append((context, Watch(context, console)))
        return context.new_page()

    yield open_
    for context, watch in opened:
        context.close()
        assert [] == watch.seen
