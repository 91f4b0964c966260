"""Every route of the console, whoever wrote it: none is open without a login, and none acts for another site."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from anyio import CapacityLimiter
from sqlalchemy import Engine
from starlette.routing import Route

from ops.settings import Settings
from support.console.browser import Answer
from workers.console.access.principals import Authentication
from workers.console.api.operations import OPERATIONS
from workers.console.api.paths import PREFIX
from workers.console.app import make_app
from workers.console.call import Console

OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/static/x")}
#: What stands in a path, by the name of its parameter; "x" for others.
IN_PATH = {"tenant": "acme", "chain": "0" * 32, "seq": "0", "id": "1"}
FOR_EVERYBODY = {
    *("/", "/find", "/logout", "/settings", "/settings/theme", "/settings/sessions", "/settings/sessions/end", "/tenants"),
    "/api/v1/openapi.json",
}
SAME_SITE = {"sec-fetch-site": "same-origin", "content-type": "application/json"}


@pytest.fixture
def routes(console_settings: Settings, acts: Engine) -> Sequence[tuple[str, str]]:
    """Methods and paths of all routes."""
    threads = CapacityLimiter(1)
    app = make_app(Console(console_settings, acts, acts, threads, Authentication(console_settings, acts, threads)))
    found: list[Any] = [each for each in app.routes if isinstance(each, Route)]
    assert len(found) == len(app.routes), "there are others than this test looks at"
    return [
        (method, re.sub(r"{(\w+)(:\w+)?}", lambda name: IN_PATH.get(name[1], "x"), route.path))
        for route in found
        for method in sorted(route.methods - {"HEAD"})
    ]


def status(each: tuple[str, str], answer: Answer) -> int:
    """The status of an answer; 0 for the way from an act's address back to what it is an act on, which shows nothing."""
    back = each[1].rpartition("/")[0]
    return 0 if each[0] == "GET" and back and (303, back) == (answer.status, answer.headers.get("location")) else answer.status


def test_without_a_login_nothing_is_shown_and_nothing_done(browser, routes) -> None:
    asked = {**SAME_SITE, "accept": "application/json"}
    answers = {each: status(each, browser.ask(*each, None, asked)) for each in routes}

    assert {} == {each: said for each, said in answers.items() if each not in OPEN and said not in (0, 401)}
    assert len(answers) > 50


def test_whoever_asks_for_a_page_is_led_to_the_login(browser, routes) -> None:
    pages = [path for method, path in routes if method == "GET" and not path.startswith("/api/") and ("GET", path) not in OPEN]

    assert {303} == {browser.get(path).status for path in pages}


def test_no_act_is_done_for_another_site_or_without_the_sessions_secret(browser, token, routes) -> None:
    csrf = browser.log_in(token("admin"))
    unsafe = [each for each in routes if each[0] != "GET" and each not in OPEN]
    without = {each: browser.ask(*each, "{}", SAME_SITE).status for each in unsafe}
    with_it = {"x-csrf-token": csrf, "content-type": "application/json"}
    foreign = {each: browser.ask(*each, "{}", {**with_it, "sec-fetch-site": "cross-site"}).status for each in unsafe}

    assert {} == {each: said for each, said in without.items() if said != 403}
    assert {} == {each: said for each, said in foreign.items() if said != 403}
    assert 200 == browser.get("/settings/sessions").status
    assert len(unsafe) > 20


def test_of_another_tenant_nothing_is_shown_and_nothing_done(browser, token, routes) -> None:
    text = token("admin", "other")
    of_acme = [each for each in routes if "/acme" in each[1]]
    answers = {each: status(each, browser.api(each[1], text, each[0], body={})) for each in of_acme}

    assert {} == {each: said for each, said in answers.items() if said not in (0, 404)}
    assert len(of_acme) > 50


def test_what_belongs_to_no_tenant_is_not_for_who_has_one(browser, token, routes) -> None:
    """But for what is for everybody, and for operations that give each their own part."""
    text = token("admin", "acme")
    parted = {PREFIX + re.sub(r"{(\w+)}", "1", each.path) for each in OPERATIONS if each.scope == "any"}
    general = [each for each in routes if "/acme" not in each[1] and each not in OPEN]
    answers = {each: status(each, browser.api(each[1], text, each[0], body={})) for each in general}

    assert set() == {path for (_, path), said in answers.items() if said not in (0, 403, 404)} - parted - FOR_EVERYBODY
