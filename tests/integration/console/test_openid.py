"""Logins at an OpenID provider that nobody here wrote, from the first click to the page, and what must not log anybody in."""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

from ops.settings import Settings
from support.console.browser import Answer, Browser
from support.console.running import running_console

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of libraries that the provider uses
    import oidc_provider_mock

pytestmark = pytest.mark.filterwarnings("ignore")  # likewise

COOKIE, ATTEMPT = "__Host-waxseal", "__Host-waxseal-login"
GRANTS = "ops=operator@acme, admins=admin"

Person = Callable[..., str]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider on another host than the console: cookies are shared by the ports of a host."""
    with oidc_provider_mock.run_server_in_thread(require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def openid_settings(console_settings: Settings, issuer: str) -> Settings:
    return console_settings.model_copy(
        update={
            "oidc_issuer": issuer,
            "oidc_client": "waxseal",
            "oidc_secret": "a/secret+of:it",
            "oidc_grants": GRANTS,
            "allow_networks": "127.0.0.0/8,::1/128",
        }
    )


@pytest.fixture(scope="module")
def shared_openid_console(openid_settings: Settings, probes_of: Any) -> Iterator[str]:
    with running_console(openid_settings, probes_of) as url:
        yield url


@pytest.fixture
def console_url(shared_openid_console: str, acts) -> str:
    return shared_openid_console


@pytest.fixture
def browser(console_url) -> Browser:
    return Browser(console_url)


@pytest.fixture
def another(console_url) -> Browser:
    return Browser(console_url)


@pytest.fixture
def person(issuer: str) -> Person:
    """Makes a person known to the provider; returns its subject."""

    def make(sub: str = "248289", **claims: Any) -> str:
        about = {"email": f"{sub}@acme.example", "groups": ["ops", "staff"], **claims}
        answer = Browser(issuer).ask("PUT", f"/users/{sub}", json.dumps(about), {"content-type": "application/json"})
        assert 204 == answer.status, answer.text
        return sub

    return make


def at_provider(browser: Browser, sub: str, to: str = "/probe/viewer", **query: str) -> tuple[str, Answer]:
    """From the login page to the provider, where the person consents: the provider's address, and its answer."""
    left = browser.get(f"/login/openid?next={quote(to)}&{urlencode(query)}")
    assert 303 == left.status, left.text
    answer = browser.ask("POST", left.location, f"sub={sub}", {"content-type": "application/x-www-form-urlencoded"})
    assert 302 == answer.status, answer.text
    return left.location, answer


def log_in(browser: Browser, sub: str, to: str = "/t/acme/probe/viewer", **query: str) -> Answer:
    _, back = at_provider(browser, sub, to, **query)
    return browser.get(back.location, **{"sec-fetch-site": "cross-site"})


def test_a_person_logs_in_at_the_provider_and_comes_back_to_the_page_they_asked_for(browser, person, database) -> None:
    sub = person(email="ann@acme.example")
    asked = browser.follow(browser.get("/t/acme/probe/viewer?since=2h"))
    link = next(part for part in asked.text.split('"') if part.startswith("/login/openid?"))
    left = browser.get(link.replace("&amp;", "&"))
    consent = browser.ask("POST", left.location, f"sub={sub}", {"content-type": "application/x-www-form-urlencoded"})
    back = browser.get(consent.location, **{"sec-fetch-site": "cross-site"})

    assert (303, "/t/acme/probe/viewer?since=2h") == (back.status, back.headers["location"])
    said = browser.follow(back).json
    assert ("ann@acme.example", {"acme": "operator"}, "session") == (said["who"], said["grants"], said["means"])
    rows = database.rows("SELECT who, filter ->> 'issuer', filter ->> 'subject', tenant FROM audit WHERE act = 'login'")
    assert [("ann@acme.example", said_issuer(left), sub, "acme")] == rows
    assert [] == database.rows("SELECT FROM login_attempt")


def said_issuer(left: Answer) -> str:
    parts = urlsplit(left.location)
    return f"{parts.scheme}://{parts.netloc}"


def test_what_goes_to_the_provider_holds_no_secret_and_the_code_is_bound_to_this_browser(browser, person, database) -> None:
    address, _ = at_provider(browser, person())
    asked = {name: value for name, (value,) in parse_qs(urlsplit(address).query).items()}
    ((nonce, verifier),) = database.rows("SELECT nonce, verifier FROM login_attempt")

    assert ("code", "waxseal", "openid email profile", "S256") == tuple(
        asked[each] for each in ("response_type", "client_id", "scope", "code_challenge_method")
    )
    assert f"{browser.base}/login/callback" == asked["redirect_uri"]
    assert nonce == asked["nonce"]
    assert all(secret not in address for secret in (verifier, str(browser.cookie(ATTEMPT)), "secret"))
    assert (43, "43200", False) == (len(asked["code_challenge"]), asked["max_age"], "prompt" in asked)


def test_somebody_in_none_of_the_groups_is_not_logged_in(browser, person, database) -> None:
    answer = log_in(browser, person("7", groups=["staff"], email="eve@acme.example"))

    assert (403, None) == (answer.status, browser.cookie(COOKIE))
    assert "eve@acme.example" in answer.text
    assert "WAXSEAL_OIDC_GRANTS" in answer.text
    rows = database.rows("SELECT act, who, outcome, address, filter ->> 'subject' FROM audit")
    assert [("login", "eve@acme.example", "refused", "127.0.0.1", "7")] == rows


@pytest.mark.parametrize("groups", [None, [], "staff", 7, {"ops": True}, [["ops"]], ["OPS"], ["ops "], ["ops=operator@acme"]])
def test_only_a_group_of_exactly_this_name_counts(browser, person, groups) -> None:
    assert 403 == log_in(browser, person("8", groups=groups)).status


def test_one_group_may_come_as_a_text(browser, person) -> None:
    assert 303 == log_in(browser, person("9", groups="ops")).status


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        ({"email": "eve@acme.example", "email_verified": True}, "eve@acme.example"),
        ({"email": "ceo@acme.example", "email_verified": False}, "s1"),
        ({"email": None}, "s1"),
        ({"email": "a\nb"}, "s1"),
        ({"email": "x" * 300}, "s1"),
    ],
)
def test_the_audit_names_a_person_by_an_address_only_if_it_is_theirs(browser, person, database, claims, who) -> None:
    log_in(browser, person("s1", **claims))

    assert [(who,)] == database.rows("SELECT who FROM audit WHERE act = 'login'")


def test_a_login_can_be_completed_once(browser, person) -> None:
    _, back = at_provider(browser, person())
    first = browser.get(back.location)
    browser.cookies["127.0.0.1"].pop(COOKIE)
    second = browser.get(back.location)

    assert (303, 400, None) == (first.status, second.status, browser.cookie(COOKIE))


def test_a_login_that_began_in_another_browser_logs_nobody_in(browser, another, person) -> None:
    """An attacker's own code and state, sent to somebody, would log them in as the attacker."""
    _, back = at_provider(browser, person("666"))
    without = another.get(back.location)
    at_provider(another, person())
    with_own = another.get(back.location)

    assert (400, 400, None) == (without.status, with_own.status, another.cookie(COOKIE))
    assert 303 == browser.get(back.location).status  # and the one who began it is not kept from completing it


def test_a_code_of_another_login_is_not_taken(browser, another, person) -> None:
    """The nonce, and at a provider that checks it the verifier, bind a code to the login that it was asked for by."""
    _, stolen = at_provider(browser, person("ann"))
    _, own = at_provider(another, person("eve"))
    code = parse_qs(urlsplit(stolen.location).query)["code"][0]
    own_code = parse_qs(urlsplit(own.location).query)["code"][0]
    answer = another.get(own.location.replace(quote(own_code), quote(code)))

    assert (403, None) == (answer.status, another.cookie(COOKIE))
    assert "not to be believed" in answer.text


def test_two_logins_at_once_in_one_browser_both_succeed(browser, person) -> None:
    _, one = at_provider(browser, person("ann"), "/t/acme/probe/viewer?1")
    _, two = at_provider(browser, person("bob"), "/t/acme/probe/viewer?2")

    assert ["?1", "?2"] == [browser.get(each.location).headers["location"][-2:] for each in (one, two)]
    assert "bob@acme.example" == browser.get("/t/acme/probe/viewer").json["who"]


def test_a_login_makes_a_new_session_whatever_cookie_the_browser_had(browser, another, person) -> None:
    log_in(browser, person("ann"))
    planted = str(browser.cookie(COOKIE))
    another.cookies = {"127.0.0.1": {COOKIE: planted, ATTEMPT: "x" * 43}}
    log_in(another, person("bob"))

    assert planted != another.cookie(COOKIE)
    assert 401 == browser.get("/t/acme/probe/viewer", accept="*/*").status


def test_a_login_that_takes_too_long_has_ended(browser, person, database) -> None:
    _, back = at_provider(browser, person())
    database.run("UPDATE login_attempt SET ends_at = now() - interval '1 second'")

    assert 400 == browser.get(back.location).status


@pytest.mark.parametrize(
    "forged", ["state=x", "state=", "", "code=x", "state=%00&code=x", "error=access_denied", "state=" + "x" * 5000]
)
def test_a_made_up_return_logs_nobody_in(browser, person, forged) -> None:
    at_provider(browser, person())
    answer = browser.get(f"/login/callback?{forged}")

    assert (400, None) == (answer.status, browser.cookie(COOKIE))


def test_who_does_not_consent_is_told_so_and_can_try_again(browser, person) -> None:
    left = browser.get("/login/openid")
    back = browser.ask("POST", left.location, "action=deny", {"content-type": "application/x-www-form-urlencoded"})
    state = parse_qs(urlsplit(left.location).query)["state"][0]
    separator = "&" if "?" in back.location else "?"
    at = back.location if "state=" in back.location else f"{back.location}{separator}state={state}"
    answer = browser.get(at)

    assert (403, True) == (answer.status, "access_denied" in answer.text)
    assert 303 == log_in(browser, person()).status


@pytest.mark.parametrize("named", ["https://evil.example", "", "http://localhost:1"])
def test_a_return_in_the_name_of_another_provider_logs_nobody_in(browser, person, named) -> None:
    _, back = at_provider(browser, person())
    answer = browser.get(f"{back.location}&iss={quote(named)}")

    assert (403, None) == (answer.status, browser.cookie(COOKIE))


def test_an_error_is_shown_as_text(browser, person) -> None:
    left = browser.get("/login/openid")
    state = parse_qs(urlsplit(left.location).query)["state"][0]
    answer = browser.get(f"/login/callback?state={state}&error={quote('<script>alert(1)</script>')}")

    assert (403, False) == (answer.status, "<script>alert" in answer.text)


def test_for_what_is_to_be_revealed_the_provider_asks_anew_and_must_say_when(browser, person) -> None:
    address, _ = at_provider(browser, person("old"), fresh="1")
    asked = parse_qs(urlsplit(address).query)
    refused = (None, int(time.time()) - 3600, int(time.time()) + 3600, "now", True, -1)
    answers = [log_in(browser, person(f"p{n}", auth_time=said), fresh="1") for n, said in enumerate(refused)]

    assert (["login"], ["0"]) == (asked["prompt"], asked["max_age"])
    assert [403] * len(refused) == [answer.status for answer in answers]
    assert 303 == log_in(browser, person("new", auth_time=int(time.time())), fresh="1").status
    assert browser.get("/t/acme/probe/viewer").json["fresh"]


def test_a_login_in_passing_is_as_fresh_as_the_provider_says(browser, person) -> None:
    fresh = []
    for age in (10, 280, 320, 7200):
        log_in(browser, person(f"aged{age}", auth_time=int(time.time()) - age))
        fresh.append(browser.get("/t/acme/probe/viewer").json["fresh"])

    assert [True, True, False, False] == fresh


def test_a_session_is_over_under_other_grants(browser, person, openid_settings, probes_of) -> None:
    log_in(browser, person())
    for update, status in (({}, 200), ({"oidc_grants": "ops=viewer@acme"}, 401), ({"oidc_issuer": ""}, 401)):
        with running_console(openid_settings.model_copy(update=update), probes_of) as url:
            other = Browser(url)
            other.cookies = browser.cookies
            assert status == other.get("/t/acme/probe/viewer", accept="*/*").status


def test_logging_out_ends_the_session_and_signing_out_everywhere_all_of_the_same_person(browser, another, person) -> None:
    log_in(browser, person("ann", email="same@acme.example"))
    log_in(another, person("bob", email="same@acme.example"))
    third = Browser(browser.base)
    log_in(third, person("ann", email="same@acme.example"))
    csrf = browser.get("/settings/sessions").fields["csrf"]

    assert 303 == browser.post("/settings/sessions/end", {"csrf": csrf}).status
    seen = [each.get("/settings/sessions", accept="*/*").status for each in (browser, another, third)]
    assert [401, 200, 401] == seen  # a person is an issuer's subject, whatever it is called


def test_after_ten_logins_and_twenty_returns_in_a_minute_an_address_has_to_wait(browser, database) -> None:
    left = [browser.get("/login/openid").status for _ in range(11)]
    back = [browser.get("/login/callback?state=x").status for _ in range(21)]

    assert [303] * 10 + [429] == left
    assert [400] * 20 + [429] == back
    assert "retry-after" in browser.get("/login/callback?state=x").headers


def test_a_provider_that_is_away_or_another_is_said_and_tokens_still_work(
    openid_settings, issuer, acts, token, probes_of
) -> None:
    away = {"oidc_issuer": "http://localhost:1"}
    renamed = {"oidc_issuer": f"{issuer}/"}  # answers, and calls itself otherwise
    refused = {"allow_networks": "none"}
    for update in (away, renamed, refused):
        with running_console(openid_settings.model_copy(update=update), probes_of) as url:
            browser = Browser(url)
            answer = browser.get("/login/openid")
            assert 503 == answer.status
            assert "log in by a token" in answer.text
            browser.log_in(token())
