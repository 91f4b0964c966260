"""Sessions of the console: begun by a login, ended at once, and of no use to another site, nor to whoever knew the cookie."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from ops.admin.access import sessions, tokens
from ops.admin.access.sessions import MOST_OF_ONE, Person, Visitor
from ops.admin.access.sweeping import EVERY, Sweeping
from schemas.access import ROLES
from support.console.browser import Browser
from support.console.running import running_console

COOKIE = "__Host-waxseal"
SAME = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def another(shared_console: str, acts) -> Browser:
    return Browser(shared_console)


def test_who_asks_for_a_page_is_led_to_the_login_and_back(browser, token) -> None:
    asked = browser.get("/t/acme/probe/viewer?since=2h&x=%2F")
    login = browser.follow(asked)
    answer = browser.post("/login", {"token": token("viewer", "acme"), "next": login.fields["next"]})

    assert (303, 200) == (asked.status, login.status)
    assert (303, "/t/acme/probe/viewer?since=2h&x=%2F") == (answer.status, answer.headers["location"])
    seen = browser.follow(answer)
    assert ("ann", {"acme": "viewer"}, "session", True) == tuple(
        seen.json[each] for each in ("who", "grants", "means", "fresh")
    )


def test_a_program_and_an_act_are_refused_and_not_led_elsewhere(browser) -> None:
    answers = [browser.get("/probe/viewer", accept="application/json"), browser.get("/api/v1/probe/viewer")]

    assert [401, 401, 401] == [each.status for each in (*answers, browser.post("/probe/viewer"))]


ELSEWHERE = ["//evil.example/", "/\\evil.example", "https://evil.example", "evil", "", "/login", "/login?next=/x", "/\x00"]


def test_after_a_failed_login_the_page_that_was_asked_for_is_not_forgotten(browser, token) -> None:
    failed = browser.post("/login", {"token": "wrong", "next": "/t/acme/probe/viewer"})

    assert "/t/acme/probe/viewer" == failed.fields["next"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("tenant", ["acme", None])
def test_whoever_is_known_may_see_and_end_their_own_sessions_and_nobody_else(browser, another, token, role, tenant) -> None:
    text = token(role, tenant)
    admin = role == "admin" and tenant is None
    pages = {"": "/logout", "end": "/settings/sessions/end", "x/end": "/settings/sessions/x/end"}
    by_token = {each: browser.api(page, text, "POST").status for each, page in pages.items()}
    browser.log_in(text)
    unsigned = {each: browser.post(page).status for each, page in pages.items()}
    nobody = [another.post(page).status for page in pages.values()]
    signed = browser.post(pages["x/end"], {"csrf": browser.get("/settings/sessions").fields["csrf"]})

    assert {"": 303, "end": 303, "x/end": 303 if admin else 404} == by_token
    assert {"": 403, "end": 403, "x/end": 403} == unsigned
    assert [401, 401, 401] == nobody
    assert (303 if admin else 404) == signed.status
    assert [200, 303] == [each.get("/settings/sessions").status for each in (browser, another)]
    assert 405 == browser.get("/logout").status


@pytest.mark.parametrize("to", [*ELSEWHERE, "/a\r\nSet-Cookie: x=y", "javascript:alert(1)", "/" + "x" * 1000])
def test_a_login_leads_to_no_other_place(browser, token, to) -> None:
    answer = browser.post("/login", {"token": token(), "next": to})

    assert (303, "/") == (answer.status, answer.headers["location"])


def test_the_cookie_is_for_this_host_alone_and_for_no_script(browser, token) -> None:
    said = browser.post("/login", {"token": token()}).headers["set-cookie"]

    name, *attributes = said.split("; ")
    assert name.startswith(f"{COOKIE}=")
    assert {"httponly", "path=/", "samesite=lax", "secure"} == {each.lower() for each in attributes}


def test_a_refused_login_says_nothing_about_why_and_sets_no_cookie(browser, acts, token) -> None:
    revoked = token()
    tokens.revoke(acts, revoked[4:12], "test")
    answers = [browser.post("/login", {"token": text}) for text in (revoked, tokens.make_token(b"x" * 64), "", "no token")]

    assert {401} == {answer.status for answer in answers}
    assert 1 == len({answer.text for answer in answers})
    assert all("set-cookie" not in answer.headers for answer in answers)
    assert revoked not in answers[0].text


def test_a_token_in_the_address_logs_nobody_in(browser, token) -> None:
    text = token()

    assert 200 == browser.get(f"/login?token={text}").status
    assert browser.cookie(COOKIE) is None


def test_the_cookie_is_of_no_use_after_the_logout(browser, another, token) -> None:
    csrf = browser.log_in(token())
    another.cookies = {host: dict(kept) for host, kept in browser.cookies.items()}
    before = another.get("/probe/viewer").status
    out = browser.post("/logout", {"csrf": csrf})

    assert (200, 303, None) == (before, out.status, browser.cookie(COOKIE))
    assert 401 == another.get("/probe/viewer", accept="*/*").status


def test_a_login_makes_a_new_session_and_ends_the_one_before(browser, another, token) -> None:
    browser.log_in(token())
    planted = str(browser.cookie(COOKIE))
    another.cookies = {"127.0.0.1": {COOKIE: planted}}
    another.log_in(token("admin", who="eve"))

    assert planted != another.cookie(COOKIE)
    assert 401 == browser.get("/probe/viewer", accept="*/*").status
    assert "eve" == another.get("/probe/viewer").json["who"]


def test_a_cookie_that_nobody_gave_is_of_no_use(browser, database, token) -> None:
    browser.log_in(token())
    ((key, id_),) = database.rows("SELECT encode(key, 'hex'), id FROM console_session")
    for value in ("", "x", "ä", "%00", id_, key, "a" * 5000, str(browser.cookie(COOKIE))[:-1]):
        assert 401 == browser.get("/probe/viewer", accept="*/*", cookie=f"{COOKIE}={value}").status


def test_a_session_is_over_when_it_is_idle_too_old_or_its_token_is_not_valid_any_more(
    browser, another, acts, token, database
) -> None:
    one, two = token(), token(who="bob")
    browser.log_in(one)
    another.log_in(two)

    def let_in() -> list[bool]:
        return [each.get("/probe/viewer", accept="*/*").status == 200 for each in (browser, another)]

    assert [True, True] == let_in()
    for column in ("idle_until", "ends_at"):
        database.run(f"UPDATE console_session SET {column} = {column} - interval '12 hours' WHERE who = 'ann'")
        assert [False, True] == let_in()
        database.run(f"UPDATE console_session SET {column} = {column} + interval '12 hours' WHERE who = 'ann'")
    database.run("UPDATE access_token SET created_at = '2026-01-01', expires_at = '2026-01-02' WHERE id = %s", one[4:12])
    assert [False, True] == let_in()
    tokens.revoke(acts, two[4:12], "test")
    assert [False, False] == let_in()


def test_a_session_goes_on_while_it_is_used_and_that_is_noted_once_a_minute(browser, token, database) -> None:
    browser.log_in(token())
    database.run("UPDATE console_session SET seen_at = now() - interval '2 minutes', idle_until = now() + interval '1 minute'")
    seen = []
    for _ in range(2):
        assert 200 == browser.get("/probe/viewer").status
        seen += database.rows("SELECT seen_at, idle_until > now() + interval '29 minutes', xmin::text FROM console_session")

    assert 1 == len(set(seen))
    assert seen[0][1]


@pytest.mark.parametrize(("hours", "lasts"), [(8, 8), (24, 12)])
def test_who_logged_in_at_a_provider_does_so_again_after_the_hours_of_the_settings(acts, database, hours, lasts) -> None:
    """Groups are read at each login: who has left one loses its role then."""
    person = Person("ann", "https://id.example", "1", "p", {"*": "viewer"}, None, timedelta(hours=hours))
    sessions.begin_by_openid(acts, person, Visitor("10.0.0.1", "x"))

    assert [(lasts,)] == database.rows(
        "SELECT round(extract(epoch FROM ends_at - created_at) / 3600)::int FROM console_session WHERE issuer IS NOT NULL"
    )


def test_a_session_ends_with_its_token_at_the_latest_and_after_12_hours(browser, another, token, database) -> None:
    browser.log_in(token(lasts=timedelta(minutes=20)))
    another.log_in(token(lasts=timedelta(days=20), who="bob"))

    rows = dict(database.rows("SELECT who, round(extract(epoch FROM ends_at - created_at) / 60) FROM console_session"))
    assert (20, 720) == (rows["ann"], rows["bob"])


def test_a_login_is_fresh_for_five_minutes(browser, token, database) -> None:
    browser.log_in(token())
    fresh = []
    for minutes in (0, 4, 6):
        database.run("UPDATE console_session SET fresh_at = now() - make_interval(mins => %s)", minutes)
        fresh.append(browser.get("/probe/viewer").json["fresh"])

    assert [True, True, False] == fresh


FORGED = [
    ({"sec-fetch-site": "cross-site"}, True),
    ({"sec-fetch-site": "same-site"}, True),
    ({"sec-fetch-site": "none"}, True),
    ({"sec-fetch-site": None, "origin": "https://evil.example"}, True),
    ({"sec-fetch-site": None, "origin": "null"}, True),
    ({"sec-fetch-site": None, "origin": None}, True),
    ({}, False),
    ({"x-csrf-token": "wrong"}, True),
]


@pytest.mark.parametrize(("headers", "with_secret"), FORGED)
@pytest.mark.parametrize(
    "path", ["/t/acme/probe/operator", "/api/v1/t/acme/probe/operator", "/logout", "/settings/sessions/end"]
)
def test_what_another_site_makes_a_browser_send_is_refused(browser, token, headers, with_secret, path) -> None:
    csrf = browser.log_in(token("operator"))
    answer = browser.post(path, {"csrf": csrf} if with_secret else {}, **headers)

    assert 403 == answer.status
    assert 200 == browser.get("/probe/viewer").status  # the session goes on


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": None}])
def test_our_own_pages_may_act_by_form_and_by_script(browser, token, headers) -> None:
    csrf = browser.log_in(token("operator"))
    sent = [
        browser.post("/t/acme/probe/operator", {"csrf": csrf}, **headers),
        browser.post("/t/acme/probe/operator", {"csrf": "wrong"}, **{"x-csrf-token": csrf}, **headers),
        browser.ask(
            "DELETE", "/t/acme/probe/operator", None, {**SAME, "x-csrf-token": csrf, "origin": browser.base, **headers}
        ),
        browser.ask("POST", "/t/acme/probe/operator", "{}", {**SAME, "content-type": "application/json", "x-csrf-token": csrf}),
    ]
    multipart = f'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{csrf}\r\n--b--\r\n'
    sent.append(
        browser.ask("POST", "/t/acme/probe/operator", multipart, {**SAME, "content-type": "multipart/form-data; boundary=b"})
    )

    assert [200] * 5 == [each.status for each in sent]


def test_the_secret_of_one_session_is_of_no_use_in_another(browser, another, token) -> None:
    one, two = browser.log_in(token("operator")), another.log_in(token("operator", who="bob"))

    assert one != two
    assert 403 == browser.post("/t/acme/probe/operator", {"csrf": two}).status


def test_another_site_cannot_log_a_browser_in(browser, token) -> None:
    answer = browser.post("/login", {"token": token(who="eve")}, **{"sec-fetch-site": "cross-site"})

    assert (403, None) == (answer.status, browser.cookie(COOKIE))


def test_a_program_with_a_token_needs_none_of_it(browser, token) -> None:
    text = token("operator")

    assert 200 == browser.api("/api/v1/t/acme/probe/operator", text, "POST").status
    assert 200 == browser.api("/api/v1/t/acme/probe/operator", text, "POST", **{"sec-fetch-site": "cross-site"}).status


def test_refused_acts_of_somebody_known_are_in_the_audit_within_bounds(browser, token, database) -> None:
    text = token("viewer", "acme", "mallory")
    for path in ("t/acme/probe/admin", "t/other/probe/viewer", "t/a%00b/probe/viewer"):
        browser.api(f"/api/v1/{path}", text, "POST")
        browser.api(f"/api/v1/{path}", text)
    columns = "who, filter ->> 'method', outcome, means, principal, address, filter ->> 'path'"
    rows = database.rows(f"SELECT {columns} FROM audit WHERE act = 'refused' ORDER BY id")

    assert [("mallory", "POST", "refused", "token", text[4:12], "127.0.0.1")] * 3 == [row[:6] for row in rows]
    paths = [row[6].removeprefix("/api/v1/t/") for row in rows]
    assert ["acme/probe/admin", "other/probe/viewer", "a\ufffdb/probe/viewer"] == paths
    for _ in range(20):
        browser.api("/api/v1/t/acme/probe/admin", text, "POST")
    assert 10 == database.rows("SELECT count(*) FROM audit WHERE act = 'refused'")[0][0]


def test_logins_and_logouts_are_in_the_audit_with_where_they_came_from(browser, token, database) -> None:
    text = token("viewer", "acme")
    csrf = browser.log_in(text)
    browser.post("/logout", {"csrf": csrf})

    columns = "act, who, means, address, tenant, filter ->> 'token', principal, length(request_id)"
    rows = database.rows(f"SELECT {columns} FROM audit WHERE act IN ('login', 'logout') ORDER BY id")
    (id_,) = database.rows("SELECT id FROM console_session")[0]
    assert [
        ("login", "ann", "session", "127.0.0.1", "acme", text[4:12], id_, 32),
        ("logout", "ann", "session", "127.0.0.1", None, None, id_, 32),
    ] == rows


def test_one_sees_and_ends_ones_own_sessions_and_an_admin_all(browser, another, token) -> None:
    text = token("operator", "acme")
    csrf, _ = browser.log_in(text), another.log_in(text)
    third = Browser(browser.base)
    third_csrf = third.log_in(token("admin", who="root"))
    ids = [
        each.get("/probe/viewer" if each is third else "/t/acme/probe/viewer").json["id"] for each in (browser, another, third)
    ]
    shown = browser.get("/settings/sessions").text

    assert [True, True, False] == [f"/settings/sessions/{each}/end" in shown for each in ids]
    assert 404 == browser.post(f"/settings/sessions/{ids[2]}/end", {"csrf": csrf}).status
    assert 303 == browser.post(f"/settings/sessions/{ids[1]}/end", {"csrf": csrf}).status
    assert [200, 401, 200] == [each.get("/settings/sessions", accept="*/*").status for each in (browser, another, third)]
    assert ids[0] in third.get("/settings/sessions").text
    assert 303 == third.post(f"/settings/sessions/{ids[0]}/end", {"csrf": third_csrf}).status
    assert 401 == browser.get("/settings/sessions", accept="*/*").status


def test_signing_out_everywhere_ends_all_sessions_of_the_same_person(browser, another, token) -> None:
    text = token()
    csrf, _ = browser.log_in(text), another.log_in(text)
    other = Browser(browser.base)
    other.log_in(token(who="bob"))

    assert 303 == browser.post("/settings/sessions/end", {"csrf": csrf}).status
    assert [401, 401, 200] == [each.get("/settings/sessions", accept="*/*").status for each in (browser, another, other)]


def test_sessions_are_ended_by_name(browser, acts, token, database) -> None:
    browser.log_in(token())

    assert (1, 0) == (sessions.end_all(acts, "ann", "test"), sessions.end_all(acts, "ann", "test"))
    assert 401 == browser.get("/probe/viewer", accept="*/*").status


def test_the_oldest_of_too_many_sessions_of_one_person_end(acts, token, database) -> None:
    text = token()
    for _ in range(MOST_OF_ONE + 3):
        assert sessions.begin_by_token(acts, text, sessions.Visitor("192.0.2.1", "test"))

    assert MOST_OF_ONE == len(sessions.listed(acts))


def test_a_link_to_one_tenant_is_good_for_one_login_that_sees_nothing_else(browser, another, token) -> None:
    text = token("operator", "acme", "customer", once=True, lasts=timedelta(minutes=30))
    browser.log_in(text)

    assert 401 == another.post("/login", {"token": text}).status
    assert [200, 404, 403] == [browser.get(f"/{path}probe/viewer").status for path in ("t/acme/", "t/other/", "")]


def test_of_two_logins_at_once_by_a_token_that_is_good_for_one_only_one_succeeds(acts, token) -> None:
    text = token("operator", "acme", once=True)
    visitor = sessions.Visitor("192.0.2.1", "test")
    with ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda _: sessions.begin_by_token(acts, text, visitor), range(4)))

    assert 3 == values.count(None)


def test_after_ten_logins_in_a_minute_an_address_has_to_wait(browser, token, database) -> None:
    text = token()
    answers = [browser.post("/login", {"token": "wrong"}) for _ in range(10)] + [browser.post("/login", {"token": text})]

    assert [401] * 10 + [429] == [each.status for each in answers]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 6
    database.run("UPDATE access_rate SET free_at = free_at - interval '6 seconds'")
    assert 303 == browser.post("/login", {"token": text}).status


def test_after_twenty_bad_tokens_in_a_minute_further_ones_have_to_wait_but_good_ones_do_not(browser, token) -> None:
    text = token()
    statuses = [browser.api("/api/v1/probe/viewer", "wrong").status for _ in range(21)]
    last = browser.api("/api/v1/probe/viewer", "wrong")

    assert [401] * 20 + [429] == statuses
    assert (429, True) == (last.status, 1 <= int(last.headers["retry-after"]) <= 3)
    assert 200 == browser.api("/api/v1/probe/viewer", text).status


@pytest.mark.parametrize(
    ("proxies", "said", "address"),
    [
        ("", "192.0.2.7", "127.0.0.1"),
        ("10.0.0.0/8", "192.0.2.7", "127.0.0.1"),
        ("127.0.0.0/8", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.0/8", "6.6.6.6, 192.0.2.7", "192.0.2.7"),  # what the client claims itself comes first
        ("127.0.0.0/8, 10.0.0.0/8", "6.6.6.6, 192.0.2.7, 10.0.0.3", "192.0.2.7"),
        ("127.0.0.0/8", None, "127.0.0.1"),
    ],
)
def test_only_proxies_of_the_settings_say_which_address_is_the_clients(
    console_settings, acts, token, probes_of, proxies, said, address
) -> None:
    with running_console(console_settings.model_copy(update={"console_proxies": proxies}), probes_of) as url:
        answer = Browser(url).api("/api/v1/probe/viewer", token(), **{"x-forwarded-for": said})

    assert address == answer.json["address"]


def test_what_ended_long_ago_is_swept_and_nothing_else(browser, another, token, database, acts) -> None:
    browser.log_in(token())
    another.log_in(token(who="bob"))
    database.run("UPDATE console_session SET ends_at = now() - interval '31 days' WHERE who = 'ann'")
    database.run("UPDATE access_rate SET free_at = now() - interval '1 second'")

    now = [0.0]
    sweeping = Sweeping(acts, lambda: now[0])
    assert 1 == sweeping.turn()
    assert [("bob",)] == database.rows("SELECT who FROM console_session")
    assert [] == database.rows("SELECT FROM access_rate")
    assert 200 == another.get("/probe/viewer").status
    database.run("UPDATE console_session SET ends_at = now() - interval '31 days'")
    assert [0, 1] == [sweeping.turn() for now[0] in (EVERY - 1, EVERY)]
