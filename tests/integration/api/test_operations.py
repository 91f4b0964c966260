"""The operations of the API, asked as programs ask them: what they answer, whom, and how they refuse."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Engine

from ops.admin.access import sessions, tokens
from ops.admin.access.repeated import once
from ops.admin.access.sessions import Visitor
from ops.admin.jobs import jobs
from ops.admin.jobs.running import take
from ops.runtime.db import make_engine, transaction
from pipeline.store.access import idempotency_keys
from schemas.access import ROLES, Actor, Role
from support.blobs import NO_BLOBS
from support.console.api import Api, Said
from support.console.running import running_console
from support.console.world import HOSTILE, fill, settings_of
from support.waiting import wait_for
from workers.console.api.api_problems import Problem
from workers.console.api.operation import Operation
from workers.console.api.operations import OPERATIONS
from workers.console.job_runner import JobRunner
from workers.eraser.erasure_requests import ErasureRequests

READS = [each for each in OPERATIONS if each.method == "GET"]
PLACES = {"tenant": "acme", "name": "billing", "id": "1", "seq": "0", "key": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def world(shared_database, folder) -> Any:
    fill(shared_database, folder)
    return shared_database


@pytest.fixture(scope="module")
def acting(world) -> Iterator[Engine]:
    engine = make_engine(world.console_url, pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def url(world, folder) -> Iterator[str]:
    with running_console(settings_of(world, folder)) as url:
        yield url


@pytest.fixture(scope="module")
def api(url, acting) -> Callable[..., Api]:
    """A client in a role, for a tenant or for all."""
    made: dict[tuple[Role, str | None], Api] = {}

    def client(role: Role = "admin", tenant: str | None = None) -> Api:
        if (role, tenant) not in made:
            _, secret = tokens.new(acting, who="ann", role=role, tenant=tenant, lasts=timedelta(hours=1), by="test")
            made[role, tenant] = Api(url, secret)
        return made[role, tenant]

    return client


def path_of(operation: Operation, world: Any, **more: str) -> str:
    chain = world.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = 'order-1'")[0][0].hex
    name = "support" if "mailboxes" in operation.path else "billing"
    return operation.path.format(**{**PLACES, "chain": chain, "name": name, **more})


def query_of(operation: Operation) -> dict[str, Any]:
    """The values of the parameters that must be given."""
    values = {"subject": "order-1", "old": 1, "new": 24}
    return {name: values[name] for name, field in operation.query.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("operation", [each for each in READS if "{id}" not in each.path], ids=lambda each: each.id)
def test_what_is_read_is_as_documented_member_by_member(operation, world, api) -> None:
    answer = api().get(path_of(operation, world), **query_of(operation))

    assert 200 == answer.status or (operation.id, 409) == ("prove_complete", answer.status), answer.raw
    if answer.status == 200 and operation.answers[200] is not None and operation.id != "openapi":
        TypeAdapter(operation.answers[200]).validate_json(answer.raw, extra="forbid")


def test_things_with_an_id_are_as_documented(world, api) -> None:
    one = api()
    for id_, path, ids in (
        ("show_dead_letter", "/tenants/acme/dead-letters/{}", "SELECT id FROM dead_letter WHERE tenant = 'acme'"),
        ("show_dead_letter_of_all", "/dead-letters/{}", "SELECT id FROM dead_letter"),
        ("show_delivery", "/tenants/acme/deliveries/{}", "SELECT id FROM delivery WHERE tenant = 'acme' ORDER BY id LIMIT 30"),
        ("show_job", "/jobs/{}", "SELECT id FROM job"),
    ):
        model = TypeAdapter(next(each.answers[200] for each in OPERATIONS if each.id == id_))
        for (id,) in world.rows(ids):
            model.validate_json(one.get(path.format(id)).raw, extra="forbid")


def bare(operation: Operation, one: Api, path: str) -> Said:
    """Asks without a body, or with an empty one, so that nothing happens."""
    body = {} if operation.body is not None else b"-" if operation.body_media else None
    media = {"Content-Type": operation.body_media[0]} if operation.body_media else {}
    return one.ask(operation.method, path, body, headers=media)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_who_may_do_what(operation, world, api, url) -> None:
    """Each role, for the tenant, for another, and for all: from the table alone. What it may not is not looked into."""
    path = path_of(operation, world, id="999999", name="nothing-such")

    assert 401 == bare(operation, Api(url, None), path).status
    for role in ROLES:
        enough = ROLES.index(role) >= ROLES.index(operation.role)
        for of in (None, "acme", "zoo"):
            here = of is None or operation.scope == "any" or (operation.scope == "tenant" and of == "acme")
            status = bare(operation, api(role, of), path).status
            if operation.scope == "tenant" and of == "zoo":
                assert 404 == status, (role, of)
            elif enough and here:
                assert status not in (401, 403, *range(500, 600)), (role, of)
            else:
                assert 403 == status, (role, of)


def test_one_tenant_sees_nothing_of_another_by_any_id(world, api) -> None:
    keeper = api("admin", "zoo")
    ((letter,),) = world.rows("SELECT min(id) FROM dead_letter WHERE tenant = 'acme'")
    ((sent,),) = world.rows("SELECT min(id) FROM delivery WHERE tenant = 'acme'")
    ((job,),) = world.rows("SELECT min(id) FROM job WHERE tenant = 'acme'")
    ((chain,),) = world.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = 'order-1'")
    theirs = [
        keeper.get(f"/tenants/zoo/dead-letters/{letter}"),
        keeper.post(f"/tenants/zoo/dead-letters/{letter}/content", {}),
        keeper.get(f"/tenants/zoo/deliveries/{sent}"),
        keeper.post(f"/tenants/zoo/deliveries/{sent}/answers", {}),
        keeper.get(f"/tenants/zoo/events/{chain.hex}/0"),
        keeper.post(f"/tenants/zoo/events/{chain.hex}/0/content", {}),
        keeper.get(f"/jobs/{job}"),
        keeper.post(f"/jobs/{job}/cancel", {}),
        keeper.get(f"/jobs/{job}/file"),
    ]

    assert {404} == {each.status for each in theirs}
    assert {"zoo"} == {each["tenant"] for each in keeper.all_of("/tenants/zoo/dead-letters")}
    assert {"zoo"} >= {each["tenant"] for path in ("/audit", "/jobs", "/operator-events") for each in keeper.all_of(path)}
    assert 422 == keeper.get("/jobs", tenant="acme").status
    assert ["zoo"] == [each["name"] for each in keeper.get("/tenants").json["data"]]


def test_content_is_shown_by_a_reveal_only_and_the_audit_says_so_first(world, api) -> None:
    """Neither bodies, nor header values, nor what endpoints answered are in what is read."""
    operator, viewer = api("operator", "acme"), api("viewer", "acme")
    ((letter,),) = world.rows("SELECT min(id) FROM dead_letter WHERE tenant = 'acme' AND body IS NOT NULL")
    ((sent,),) = world.rows("SELECT min(delivery_id) FROM attempt WHERE response <> ''")
    ((chain,),) = world.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = 'order-1'")
    paths = (
        (f"/tenants/acme/dead-letters/{letter}", "content"),
        (f"/tenants/acme/deliveries/{sent}", "answers"),
        (f"/tenants/acme/events/{chain.hex}/0", "content"),
    )
    shown = [viewer.get(path).json for path, _ in paths]
    before = world.rows("SELECT count(*) FROM audit WHERE act = 'reveal'")[0][0]
    refused = [viewer.post(f"{path}/{what}", {}).status for path, what in paths]
    revealed = [operator.post(f"{path}/{what}", {"reason": "they asked"}).json for path, what in paths]

    assert [403, 403, 403] == refused
    assert HOSTILE == revealed[0]["body"]
    assert HOSTILE in revealed[1]["answers"][0]["response"]
    assert '{"n": 1}' == revealed[2]["body"]
    assert not any({"body", "body_base64", "headers"} & set(each) for each in shown)
    assert all("response" not in each for each in shown[1]["tries"])
    rows = world.rows("SELECT who, tenant, reason, means FROM audit WHERE act = 'reveal' ORDER BY id OFFSET %s", before)
    assert [("ann", "acme", "they asked", "token")] * 3 == rows


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "where"),
    [
        ("GET", "/tenants/acme/events?limit=0", None, {}, 422, "limit"),
        ("GET", "/tenants/acme/events?limit=7x", None, {}, 422, "limit"),
        ("GET", "/tenants/acme/events?limit=1&limit=2", None, {}, 422, "limit"),
        ("GET", "/tenants/acme/events?nonsense=1", None, {}, 422, "nonsense"),
        ("GET", "/tenants/acme/events?cursor=abc", None, {}, 422, "cursor"),
        ("GET", "/tenants/acme/events?since=2026-01-01", None, {}, 422, "since"),
        ("GET", "/tenants/acme/events?subject=a%00b", None, {}, 422, "subject"),
        ("GET", "/tenants/nobody/events", None, {}, 404, None),
        ("GET", "/tenants/ACME/events", None, {}, 404, None),
        ("GET", "/tenants/acme/endpoints/none", None, {}, 404, None),
        ("GET", "/dead-letters?endpoint=nobody", None, {}, 404, None),
        ("GET", "/jobs/99999999999999999999", None, {}, 404, None),
        ("GET", "/nothing", None, {}, 404, None),
        ("DELETE", "/me", None, {}, 405, None),
        ("POST", "/tenants/acme/endpoints/billing/disable", {"reasn": "x"}, {}, 422, "/reasn"),
        ("POST", "/tenants/acme/endpoints/billing/disable", {"reason": "a\nb"}, {}, 422, "/reason"),
        ("POST", "/tenants/acme/endpoints/billing/disable", b"{", {"Content-Type": "application/json"}, 400, None),
        ("POST", "/tenants/acme/endpoints/billing/disable", b"{}", {"Content-Type": "text/plain"}, 415, None),
        ("POST", "/tenants/acme/dead-letters/discard", {}, {"Idempotency-Key": "x"}, 422, ""),
        ("POST", "/tenants/acme/dead-letters/discard", {"all": True, "reason": "x"}, {"Idempotency-Key": "x"}, 422, ""),
        ("POST", "/tenants/acme/dead-letters/discard", {"all": True}, {}, 400, "Idempotency-Key"),
        ("POST", "/tenants/acme/dead-letters/discard", {"ids": [0]}, {"Idempotency-Key": "x"}, 422, "/ids/0"),
        ("PUT", "/configuration", b"tenants: []", {"Content-Type": "application/yaml"}, 428, None),
        ("PUT", "/configuration", b" " * (4 * 2**20 + 1), {"Content-Type": "application/yaml"}, 413, None),
        ("PUT", "/configuration", b"tenants: []", {"Content-Type": "application/yaml", "If-Match": '"old"'}, 412, None),
    ],
)
def test_what_is_wrong_is_said_with_its_place_as_rfc_9457_has_it(api, method, path, body, headers, status, where) -> None:
    said = api().ask(method, path, body, headers=headers)

    assert status == said.status, said.raw
    assert "application/problem+json" == said.headers["content-type"]
    Problem.model_validate_json(said.raw)
    assert said.headers["x-request-id"] == said.json["request_id"]
    if where is not None:
        assert where in [each.get("parameter", each.get("pointer")) for each in said.json["errors"]]


def test_without_a_token_the_answer_says_how_to_come_in(url) -> None:
    said = Api(url, None).get("/me")

    assert (401, "Bearer") == (said.status, said.headers["www-authenticate"])
    assert 401 == Api(url, "wxs_none").get("/me").status


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/tenants/acme/events", {}),
        ("/tenants/acme/timeline", {"subject": "order-1"}),
        ("/tenants/acme/deliveries", {}),
        ("/tenants/acme/undelivered", {}),
        ("/tenants/acme/dead-letters", {"closed": "true"}),
        ("/dead-letters", {}),
        ("/jobs", {}),
        ("/audit", {}),
        ("/operator-events", {}),
    ],
)
def test_pages_of_any_size_have_the_same_rows_in_the_same_order(api, path, query) -> None:
    one = api("viewer")
    whole = one.all_of(path, limit=200, **query)

    assert whole
    for limit in (1, 2, 7):
        if len(whole) / limit < 60:
            assert whole == one.all_of(path, limit=limit, **query)
    first = one.get(path, limit=1, **query).json["next"]
    if first is not None:
        assert 422 == one.get("/audit" if path != "/audit" else "/jobs", cursor=first).status


def test_a_page_has_as_many_rows_as_are_asked_for_whatever_their_number(api) -> None:
    one = api("viewer")
    there = len(one.all_of("/dead-letters", limit=200))

    found = [len(one.get("/dead-letters", limit=limit).json["data"]) for limit in range(1, 201)]
    assert [min(limit, there) for limit in range(1, 201)] == found


def test_an_act_under_a_key_is_done_once_and_answered_the_same(world, api) -> None:
    one = api("operator")
    began = one.post("/tenants/zoo/verifications", {}, key="twice")
    again = one.post("/tenants/zoo/verifications", {}, key="twice")
    other = one.post("/tenants/acme/verifications", {}, key="twice")

    assert [202, 202] == [began.status, again.status]
    assert (began.raw, began.headers["location"]) == (again.raw, again.headers["location"])
    assert ("true", None) == (again.headers.get("idempotency-replayed"), began.headers.get("idempotency-replayed"))
    assert (422, "urn:waxseal:problem:idempotency-key-reused") == (other.status, other.json["type"])
    assert [(1,)] == world.rows("SELECT count(*) FROM job WHERE tenant = 'zoo'")
    assert 202 == api("operator", "zoo").post("/tenants/zoo/verifications", {}, key="twice").status  # of another principal
    assert not any(b"zoo" in bytes(kept) for (kept,) in world.rows("SELECT answer FROM idempotency_key"))


def test_an_act_that_is_under_way_under_the_key_is_told_so_and_one_that_failed_may_be_asked_for_again(
    world, api, acting
) -> None:
    one = api("operator")
    principal = one.get("/me").json["id"]
    with transaction(acting) as conn:
        assert idempotency_keys.lock(conn, principal, "now")
        busy = one.post("/tenants/zoo/verifications", {}, key="now")
    failed = one.post("/tenants/zoo/endpoints/nobody/redeliver", {"since": "2026-01-01T00:00:00Z"}, key="now")
    done = one.post("/tenants/zoo/verifications", {}, key="now")

    assert [409, 404, 202] == [busy.status, failed.status, done.status], failed.raw


def test_a_crash_before_the_answer_is_written_undoes_the_act(world, acting, tmp_path) -> None:
    """Act and answer are one transaction: whatever ends it between them, nothing was done."""
    before = world.rows("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM audit)")

    def act(engine: Engine) -> tuple[int, bytes]:
        jobs.start(engine, "verify", "acme", {}, Actor("ann"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(acting, settings_of(world, tmp_path), "p", "k", b"request", act)
    assert before == world.rows("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM audit)")
    assert [] == world.rows("SELECT FROM idempotency_key WHERE principal = 'p'")


def test_the_configuration_is_compared_applied_and_not_overwritten(world, api) -> None:
    admin, other = api(), api()
    etag = admin.get("/configuration").headers["etag"]
    media = {"Content-Type": "application/yaml", "If-Match": etag}
    raw = b"tenants: [{name: zoo}]\nendpoints: [{tenant: zoo, name: second, url: 'https://second.example/'}]\n"
    compared = admin.ask("PUT", "/configuration", raw, query={"dry_run": "true"}, headers=media)
    applied = admin.ask("PUT", "/configuration", raw, headers=media)
    stale = other.ask("PUT", "/configuration", raw, headers=media)
    media["If-Match"] = admin.get("/configuration").headers["etag"]
    secret = (
        b"tenants: [{name: zoo}]\nsources: [{tenant: zoo, name: x, kind: token, secrets: ['env:PATH', 'file:/etc/passwd']}]\n"
    )
    refused = admin.ask("PUT", "/configuration", secret, headers=media)

    assert [("created", "endpoint", "second")] == [
        (each["action"], each["item"], each["name"]) for each in compared.json["changes"]
    ]
    assert (True, {}, False) == (compared.json["dry_run"], compared.json["secrets"], applied.json["dry_run"])
    assert applied.json["secrets"]["zoo/second"].startswith("whsec_")
    assert (412, 422) == (stale.status, refused.status)
    assert [2, 2] == [each["line"] for each in refused.json["errors"]]
    assert media["If-Match"] != etag
    assert [(1, "ann")] == world.rows("SELECT count, who FROM audit WHERE act = 'configuration apply'")


def test_a_secret_is_rotated_shown_once_and_signs_beside_the_former(world, api) -> None:
    before = world.rows("SELECT secrets FROM endpoint WHERE name = 'billing'")[0][0]
    said = api("admin", "acme").post("/tenants/acme/endpoints/billing/rotate-secret", {"reason": "it leaked"})
    after = world.rows("SELECT secrets FROM endpoint WHERE name = 'billing'")[0][0]

    assert 200 == said.status
    assert [said.json["secret"].encode(), world.vault.decrypt(before[0])] == [world.vault.decrypt(each) for each in after]
    assert 403 == api("operator", "acme").post("/tenants/acme/endpoints/billing/rotate-secret", {}).status


def test_switches_change_once_and_say_so(api) -> None:
    one, path = api("operator", "acme"), "/tenants/acme/endpoints/billing"
    said = [one.post(f"{path}/{act}", {}).json["changed"] for act in ("release", "release", "close-breaker", "release")]

    assert [True, False, True, True] == said
    assert "closed" == one.get(path).json["breaker"]


def test_an_endpoint_that_missed_something_is_enabled_with_a_decision_about_it(world, api) -> None:
    one, path = api("operator", "zoo"), "/tenants/zoo/endpoints/keeper"
    assert one.post(f"{path}/disable", {"reason": "they move"}).json["changed"]
    idle = "state = 'paused', next_attempt_at = NULL, settled_at = NULL, lease = NULL, lease_until = NULL"
    world.run(f"UPDATE delivery SET {idle} WHERE tenant = 'zoo'")
    counted = one.post(f"{path}/discard-missed", {}, dry_run="true").json
    undecided, enabled = one.post(f"{path}/enable", {}), one.post(f"{path}/enable", {"missed": "replay"})

    assert (3, 409, 200) == (counted["count"], undecided.status, enabled.status)
    assert (True, "endpoint_replay", 3) == (enabled.json["changed"], enabled.json["job"]["kind"], enabled.json["job"]["total"])
    assert "active" == one.get(path).json["state"]


def test_an_export_is_a_job_whose_file_is_fetched_and_that_is_audited(world, api, acting, tmp_path) -> None:
    # Each verification that other tests only asked for would begin a process.
    world.run("UPDATE job SET state = 'cancelled', ended_at = now() WHERE state = 'queued' AND kind = 'verify'")
    one = api("operator", "acme")
    begun = one.post("/tenants/acme/exports", {"subject": "order-2"})
    early = one.get(f"{begun.headers['location'].removeprefix('/api/v1')}/file")
    runner = JobRunner(settings_of(world, tmp_path), acting)
    wait_for(lambda: one.get(f"/jobs/{begun.json['id']}").json["state"] == "done")
    runner.close()
    said = one.get(f"/jobs/{begun.json['id']}/file")

    assert (202, 404, 200, "application/octet-stream") == (
        begun.status,
        early.status,
        said.status,
        said.headers["content-type"],
    )
    assert 403 == api("viewer", "acme").get(f"/jobs/{begun.json['id']}/file").status
    assert 1 + one.get(f"/jobs/{begun.json['id']}").json["result"]["entries"] <= len(said.raw.splitlines())
    assert [("ann", "acme")] == world.rows("SELECT who, tenant FROM audit WHERE act = 'export fetch'")


def test_tokens_are_made_once_and_revoked(api, url) -> None:
    admin = api()
    made = admin.post("/tokens", {"who": "bot", "role": "viewer", "tenant": "zoo", "lasts_seconds": 3600}, key="token")
    again = admin.post("/tokens", {"who": "bot", "role": "viewer", "tenant": "zoo", "lasts_seconds": 3600}, key="token")
    bot = Api(url, made.json["secret"])

    assert (201, made.json["secret"]) == (made.status, again.json["secret"])
    assert {"zoo": "viewer"} == bot.get("/me").json["grants"]
    assert 204 == admin.ask("DELETE", f"/tokens/{made.json['id']}").status
    assert (401, 404) == (bot.get("/me").status, admin.ask("DELETE", f"/tokens/{made.json['id']}").status)
    assert all("secret" not in each for each in admin.get("/tokens").json["data"])


def test_who_asked_for_another_ones_job_is_refused_as_for_one_that_is_not_there_and_the_audit_has_it(world, api) -> None:
    keeper = api("operator", "zoo")
    ((job,),) = world.rows("SELECT min(id) FROM job WHERE tenant = 'acme'")
    before = world.rows("SELECT count(*) FROM audit WHERE outcome = 'refused'")[0][0]

    refused = keeper.post(f"/jobs/{job}/cancel", {}).json
    absent = keeper.post("/jobs/999999/cancel", {}).json
    viewer = api("viewer", "zoo").post(f"/jobs/{job}/cancel", {}).status

    assert (404, f"there is no job {job}") == (refused["status"], refused["detail"])
    assert refused["title"] == absent["title"]
    assert 403 == viewer
    rows = world.rows("SELECT who, act, filter ->> 'path' FROM audit WHERE outcome = 'refused' ORDER BY id OFFSET %s", before)
    assert [("ann", "refused", f"/api/v1/jobs/{job}/cancel")] * 2 == rows


def test_a_token_of_a_tenant_that_is_gone_is_not_told_which_others_there_are(world, acting, url) -> None:
    world.run("INSERT INTO tenant (name, fingerprint_key) SELECT 'gone', fingerprint_key FROM tenant WHERE name = 'zoo'")
    _, secret = tokens.new(acting, who="g", role="admin", tenant="gone", lasts=timedelta(hours=1), by="test")
    world.run("DELETE FROM tenant WHERE name = 'gone'")
    one = Api(url, secret)

    for path in ("events", "timeline?subject=x", "log", "undelivered", "mailboxes", "endpoints", "verifications", "sources"):
        said = one.get(f"/tenants/gone/{path}")
        assert b"acme" not in said.raw, path
    assert "there is no such tenant" == one.get("/tenants/gone/events").json["detail"]


def test_content_and_secrets_are_shown_to_a_session_only_soon_after_its_login(world, api, acting, url) -> None:
    """As on the pages; a token is no person, and needs none."""
    _, secret = tokens.new(acting, who="eve", role="admin", tenant="acme", lasts=timedelta(hours=1), by="test")
    cookie = sessions.begin_by_token(acting, secret, Visitor("127.0.0.1", "test"))
    assert cookie is not None
    person = sessions.principal_of(acting, cookie, None)
    assert person is not None
    headers = {"Cookie": f"__Host-waxseal={cookie}", "X-CSRF-Token": person.csrf, "Sec-Fetch-Site": "same-origin"}
    ((letter,),) = world.rows("SELECT min(id) FROM dead_letter WHERE tenant = 'acme' AND body IS NOT NULL")
    one, path = Api(url, None), f"/tenants/acme/dead-letters/{letter}/content"
    soon = one.ask("POST", path, {}, headers=headers).status
    world.run("UPDATE console_session SET fresh_at = now() - interval '6 min' WHERE who = 'eve'")
    late = [
        one.ask("POST", path, {}, headers=headers),
        one.ask("POST", "/tenants/acme/endpoints/billing/rotate-secret", {}, headers={**headers, "Idempotency-Key": "late"}),
        one.ask("POST", "/tenants/acme/erasures", {}, headers={**headers, "Idempotency-Key": "late"}),
        one.ask("GET", "/jobs/1/file", headers=headers),
    ]

    assert 200 == soon
    assert [(403, "urn:waxseal:problem:login-again")] * 4 == [(each.status, each.json["type"]) for each in late]
    assert 200 == one.ask("POST", "/tenants/acme/endpoints/billing/close-breaker", {}, headers=headers).status
    assert 3 == world.rows("SELECT count(*) FROM audit WHERE who = 'eve' AND outcome = 'refused'")[0][0]


def test_what_operators_did_is_exported_as_lines(world, api) -> None:
    whole = api("viewer").get("/audit/export")
    lines = [json.loads(line) for line in whole.raw.splitlines()]
    ours = [json.loads(line) for line in api("viewer", "zoo").get("/audit/export").raw.splitlines()]

    assert (200, "application/x-ndjson") == (whole.status, whole.headers["content-type"])
    assert api("viewer").all_of("/audit") == lines
    assert {"zoo"} >= {each["tenant"] for each in ours}
    assert 422 == api("viewer", "zoo").get("/audit/export", tenant="acme").status
    assert b"" == api("viewer").get("/audit/export", until="1990-01-01T00:00:00Z").raw


def test_a_token_for_one_login_is_made_for_minutes_and_lets_no_request_in(api, url, acting) -> None:
    """What a backend gives to its customer: a link that opens the customer's own tenant, once."""
    admin = api()
    asked = {"who": "acme's own", "role": "operator", "tenant": "acme", "once": True}
    made = admin.post("/tokens", asked)
    long = admin.post("/tokens", {**asked, "lasts_seconds": 86_401})
    secret, at = made.json["secret"], datetime.fromisoformat
    first, second = (sessions.begin_by_token(acting, secret, Visitor("127.0.0.1", "test")) for _ in range(2))

    assert (201, True, 422) == (made.status, made.json["once"], long.status)
    assert timedelta(minutes=15) == at(made.json["expires_at"]) - at(made.json["created_at"])
    assert 401 == Api(url, secret).get("/me").status
    assert (False, True) == (first is None, second is None)


def test_a_subject_is_erased_on_request_by_the_eraser_after_its_count_was_confirmed(world, api, acting, tmp_path) -> None:
    admin, path = api("admin", "acme"), "/tenants/acme/erasures"
    wanted = {"subject": "order-4", "reason": "request 17", "subject_name": True}
    counted = admin.post(path, wanted, dry_run="true").json
    refused = [
        api("operator", "acme").post(path, wanted),
        admin.post(path, wanted),
        admin.post(path, {**wanted, "confirm": counted["count"] + 1}),
        admin.post(path, {**wanted, "confirm": counted["count"], "reason": "of Order-4"}),
        admin.post(path, {**wanted, "confirm": counted["count"], "subject": "nobody"}),
        admin.post(path, {**wanted, "confirm": counted["count"], "seqs": [0]}),
    ]
    begun = admin.post(path, {**wanted, "confirm": counted["count"]}, key="erase-4")
    again = admin.post(path, {**wanted, "confirm": counted["count"]}, key="erase-4")
    (chain,) = world.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = 'order-4'")[0]
    assert "erase" not in [job.kind for job in iter(lambda: take(acting, "console"), None)]  # a console leaves it

    eraser = make_engine(world.eraser_url, pool_size=3)
    settings = settings_of(world, tmp_path, database_url=world.eraser_url)
    ErasureRequests(eraser, settings, NO_BLOBS, threading.Event()).turn()
    eraser.dispose()

    job = admin.get(f"/jobs/{begun.json['id']}").json
    assert [403, 422, 409, 409, 404, 422] == [each.status for each in refused]
    assert (202, begun.raw) == (begun.status, again.raw)
    assert ("done", 4, 4, 4) == (job["state"], counted["count"], job["done"], job["result"]["entries"]), job
    assert b"order-4" not in begun.raw  # what is kept of it names the chain
    assert [] == world.rows("SELECT FROM chain WHERE subject = 'order-4'")
    assert [(1,)] == world.rows("SELECT count(*) FROM entry WHERE kind = 'erasure' AND chain_id = %s", chain)
    assert [("ann", 4, "begun"), ("ann", 4, "done")] == world.rows(
        "SELECT who, count, phase FROM audit WHERE act = 'erase' ORDER BY id"
    )


def test_who_had_a_mailbox_read_now_is_in_the_audit(world, api) -> None:
    world.run("UPDATE mailbox SET state = 'active', reason = NULL")
    said = api("operator", "acme").post("/tenants/acme/mailboxes/support/sync", {"reason": "a mail is late"})

    assert (200, {"changed": True}) == (said.status, said.json)
    rows = world.rows("SELECT who, means, object, reason FROM audit WHERE act = 'mailbox sync'")
    assert [("ann", "token", "mailbox support", "a mail is late")] == rows
