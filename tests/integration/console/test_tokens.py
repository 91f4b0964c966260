"""Tokens of the API: who they let in and where, and that a revoked, expired or altered one lets nobody in."""

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from ops.admin import endpoints, history
from ops.admin.access import sessions, tokens
from ops.admin.access.first_token import first_token
from ops.admin.access.sessions import Visitor
from ops.admin.bulk import Named
from ops.errors import OpsError
from schemas.access import ROLES, Actor
from support.cli import Cli

LASTS = timedelta(hours=1)


def secret_of(view: dict[str, Any]) -> str:
    return str(view["token"])


def test_a_token_says_who_asks_and_what_for(browser, token) -> None:
    answer = browser.api("/api/v1/probe/viewer", token("operator", who="deploy-bot"))

    assert 200 == answer.status
    said = answer.json
    assert ("deploy-bot", {"*": "operator"}, "token") == (said["who"], said["grants"], said["means"])
    assert ("operator", "127.0.0.1", True) == (said["role"], said["address"], said["fresh"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("needed", ROLES)
@pytest.mark.parametrize("where", ["acme", "*"])
def test_each_role_may_do_what_it_may_where_it_may(browser, token, role, needed, where) -> None:
    text = token(role, None if where == "*" else where)
    may = ROLES.index(role) >= ROLES.index(needed)

    for method in ("GET", "POST", "DELETE"):
        seen = [browser.api(f"/api/v1/{path}probe/{needed}", text, method).status for path in ("t/acme/", "t/other/", "")]
        allowed = 200 if may else 403
        assert [allowed, allowed, allowed] == seen if where == "*" else [allowed, 404, 403] == seen


def test_another_tenant_is_answered_as_one_that_does_not_exist(browser, token) -> None:
    text = token("admin", "acme")
    other, nobody = (browser.api(f"/api/v1/t/{name}/probe/viewer", text) for name in ("other", "nobody"))

    assert 404 == other.status
    assert {**other.json, "request_id": ""} == {**nobody.json, "request_id": ""}


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(browser, acts, token, database) -> None:
    good, expired, revoked, once = token(), token(), token(), token(once=True)
    database.run("UPDATE access_token SET created_at = '2026-01-01', expires_at = '2026-01-02' WHERE id = %s", expired[4:12])
    assert tokens.revoke(acts, revoked[4:12], "test")
    unknown = tokens.make_token(b"x" * 64)
    refused = [expired, revoked, once, unknown, good[:-1], f"{good}x", good.swapcase(), "", "wxs_", "x" * 5000]
    answers = [browser.api("/api/v1/probe/viewer", authorization=f"Bearer {text}") for text in refused]
    answers += [browser.api("/api/v1/probe/viewer", authorization=f"Basic {good}"), browser.api("/api/v1/probe/viewer")]

    assert 200 == browser.api("/api/v1/probe/viewer", good).status
    assert {401} == {answer.status for answer in answers}
    assert {"Bearer"} == {answer.headers["www-authenticate"] for answer in answers}
    assert 1 == len({json.dumps({**answer.json, "request_id": ""}) for answer in answers})


def test_a_secret_of_another_token_does_not_open_this_one(browser, token, database) -> None:
    one, two = token(), token()
    database.run("UPDATE access_token SET hash = %s WHERE id = %s", bytes(32), one[4:12])

    assert [401, 200] == [browser.api("/api/v1/probe/viewer", each).status for each in (one, two)]


def test_a_token_is_refused_with_the_next_request_after_it_is_revoked(browser, acts, token) -> None:
    text = token()
    before = browser.api("/api/v1/probe/viewer", text).status
    tokens.revoke(acts, text[4:12], "test")

    assert [200, 401] == [before, browser.api("/api/v1/probe/viewer", text).status]
    assert not tokens.revoke(acts, text[4:12], "test")


def test_a_token_and_a_cookie_together_are_refused(browser, token) -> None:
    answer = browser.api("/api/v1/probe/viewer", token(), cookie="__Host-waxseal=x")

    assert (400, "urn:waxseal:problem:two-credentials") == (answer.status, answer.json["type"])


def test_last_use_is_noted_at_most_once_a_minute(browser, token, database) -> None:
    text = token()
    noted = []
    for _ in range(3):
        browser.api("/api/v1/probe/viewer", text)
        noted += database.rows("SELECT last_used_at, xmin::text FROM access_token")

    assert 1 == len(set(noted))
    database.run("UPDATE access_token SET last_used_at = now() - interval '2 minutes'")
    browser.api("/api/v1/probe/viewer", text)
    assert noted[0] < database.rows("SELECT last_used_at, xmin::text FROM access_token")[0]


def test_of_a_token_only_its_hash_is_stored_and_the_audit_names_its_id(acts, token, database) -> None:
    text = token("admin", "acme", "bot")

    stored = database.rows("SELECT access_token::text FROM access_token") + database.rows("SELECT audit::text FROM audit")
    assert all(text[13:56] not in row and text not in row for (row,) in stored)
    rows = database.rows("SELECT who, act, tenant, object, means FROM audit")
    assert [("test", "token new", "acme", f"token {text[4:12]}", "cli")] == rows


@pytest.mark.parametrize("wrong", [{"who": " "}, {"who": "a\nb"}, {"who": "x" * 201}, {"tenant": "nobody"},
                                   {"lasts": timedelta(days=367)}, {"lasts": timedelta(0)},
                                   {"lasts": timedelta(days=2), "once": True}])  # fmt: skip
def test_a_token_without_a_name_a_known_tenant_or_an_end_is_not_made(acts, database, wrong) -> None:
    with pytest.raises(OpsError):
        tokens.new(acts, **{"who": "ann", "role": "viewer", "tenant": None, "lasts": LASTS, "by": "test", **wrong})
    assert [] == database.rows("SELECT id FROM access_token")


def test_commands_make_list_and_revoke_tokens(acts, database, browser) -> None:
    owner = Cli(database).owner
    (made,) = owner.json(
        "token", "new", "--role", "operator", "--tenant", "acme", "--who", "bot", "--by", "ann", "--lasts", "2h"
    )
    alone = owner.output("token", "new", "--who", "eve").strip()

    assert 200 == browser.api("/api/v1/t/acme/probe/operator", secret_of(made)).status
    assert 200 == browser.api("/api/v1/probe/viewer", alone).status
    listed = {each["id"]: each for each in owner.json("token", "list")}
    assert {made["id"], alone[4:12]} == listed.keys()
    assert [made["id"]] == [each["id"] for each in owner.json("token", "list", "--tenant", "acme")]
    assert ("ann", "operator", "active") == tuple(listed[made["id"]][name] for name in ("created_by", "role", "state"))
    assert secret_of(made) not in owner.output("token", "list")
    assert f"revoked {made['id']}\n" == owner.output("token", "revoke", made["id"])
    assert "there is no token" in owner.output("token", "revoke", made["id"], code=1)
    assert "revoked" == next(each["state"] for each in owner.json("token", "list") if each["id"] == made["id"])
    assert 401 == browser.api("/api/v1/t/acme/probe/operator", secret_of(made)).status
    (once,) = owner.json("token", "new", "--once")
    assert timedelta(minutes=15) == datetime.fromisoformat(once["expires_at"]) - datetime.fromisoformat(once["created_at"])


def test_commands_list_and_end_sessions(acts, token, database) -> None:
    owner = Cli(database).owner
    cookies = [sessions.begin_by_token(acts, token("operator", "acme", who), Visitor("10.0.0.1", "x")) for who in "aab"]
    listed = owner.json("session", "list")

    assert ["b", "a", "a"] == [each["who"] for each in listed]
    assert "operator of acme" in owner.output("session", "list")
    assert not any(str(cookie) in owner.output("session", "list") for cookie in cookies)
    assert "ended 1 session\n" == owner.output("session", "end", listed[0]["id"], "--by", "ann")
    assert "no such session" in owner.output("session", "end", listed[0]["id"], code=1)
    assert [{"ended": 2}] == owner.json("session", "end", "--who", "a")
    assert [None] * 3 == [sessions.principal_of(acts, str(cookie), None) for cookie in cookies]
    assert "say which" in owner.output("session", "end", code=2)
    assert [("ann", 1)] == database.rows("SELECT who, count FROM audit WHERE act = 'session end' ORDER BY id LIMIT 1")


def test_who_only_reads_or_writes_the_ledger_can_neither_make_tokens_nor_read_their_hashes(acts, database) -> None:
    for url in (database.worker_url, database.reader_url):
        ended = Cli(database).but(database_url=url).run("token", "new")
        assert (2, 0) == (ended.exit_code, ended.output.count("\n") - 1), ended.output
    with psycopg.connect(database.reader_url) as conn:
        assert [] == conn.execute("SELECT id FROM access_token").fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT hash FROM access_token")


def test_who_acts_by_what_and_from_where_goes_into_the_audit_and_is_found_by_tenant(acts, database) -> None:
    for tenant in ("acme", "other"):
        database.add_endpoint("billing", "https://billing.example", tenant=tenant)
    ann = Actor("ann", "session", "s1", "operator", "192.0.2.7", "r1", "too\x00 slow")
    endpoints.disable(acts, Named("acme", "billing", ann), "maintenance")
    endpoints.enable(acts, Named("other", "billing", "bob"))
    endpoints.disable(acts, Named("other", "billing", "bob"), "maintenance")

    (act,) = history.acts(acts, None, None, tenant="acme")
    said = ("who", "act", "tenant", "object", "means", "principal", "role", "address", "request_id", "reason", "outcome")
    expected = ("ann", "endpoint disable", "acme", "endpoint billing", "session", "s1", "operator", "192.0.2.7", "r1")
    assert (*expected, "too\ufffd slow", None) == tuple(act[each] for each in said)
    assert ["other", "acme"] == [each["tenant"] for each in history.acts(acts, None, None)]
    (by_command,) = history.acts(acts, None, None, tenant="other")
    assert ("bob", "cli", None) == tuple(by_command[each] for each in ("who", "means", "address"))
    assert [("by ann: maintenance",)] == database.rows("SELECT detail FROM operator_event WHERE tenant = 'acme'")


def test_the_first_token_may_do_everything_and_is_made_once(browser, database, tmp_path) -> None:
    file = tmp_path / "console-token"
    text = first_token(database.url, file)

    assert (f"{text}\n", 0o600) == (file.read_text(), file.stat().st_mode & 0o777)
    assert 200 == browser.api("/api/v1/probe/admin", str(text), "POST").status
    file.unlink()
    assert [None, None] == [first_token(database.url, each) for each in (file, None)]
    assert not file.exists()


def test_without_a_place_for_it_the_first_token_is_not_made(database, tmp_path) -> None:
    """It would be valid, and nobody would know it."""
    with pytest.raises(OSError, match="console-token"):
        first_token(database.url, tmp_path / "missing" / "console-token")
    assert [] == database.rows("SELECT id FROM access_token")
