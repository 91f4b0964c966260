"""Pages of what the console does not hold itself: the broker's queues, the processes, and the files of exports."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from ops.admin.jobs import ledger_jobs
from ops.admin.jobs.arguments import OfLedger
from ops.admin.jobs.running import Run, run, take
from ops.admin.status import queue_watch
from ops.runtime.db import make_engine
from ops.settings import Settings
from support.blobs import NO_BLOBS
from support.console.browser import Answer, Browser
from support.console.running import running_console
from support.deliveries import event, record
from support.net.ports import free_port
from support.queues import depth, emptied
from support.waiting import wait_for
from workers.amqp.topology import INBOX, declare
from workers.eraser.erasure_requests import ErasureRequests


@pytest.fixture
def on_broker(acts: Engine, console_settings: Settings, monkeypatch: Any) -> Iterator[Callable[[str], Any]]:
    """Starts a console with a broker."""
    monkeypatch.setattr(queue_watch, "KEPT", 0.0)
    monkeypatch.setattr(queue_watch, "WAIT", 30.0)  # a page waits a second, in which a busy machine may not get an answer
    consoles = []

    def start(amqp_url: str) -> Browser:
        consoles.append(running_console(console_settings.model_copy(update={"amqp_url": amqp_url})))
        return Browser(consoles[-1].__enter__())

    yield start
    for each in consoles:
        each.__exit__(None, None, None)


def test_the_first_page_shows_what_waits_in_the_inbox_and_that_nobody_takes_it(on_broker, servers, channel, token) -> None:
    declare(channel)
    emptied(channel)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("", INBOX, b"{}")
    wait_for(lambda: depth(channel) == 3)
    browser = on_broker(servers.amqp_url)
    browser.log_in(token("viewer"))
    shown = browser.get("/").text
    channel.queue_purge(INBOX)
    wait_for(lambda: depth(channel) == 0)

    assert '<span class="stage">Inbox</span><span>3 messages</span>' in shown
    assert "3 messages wait in waxseal.ingest, and no process takes them" in shown
    assert '<span class="stage">Inbox</span><span>0 messages</span>' in browser.get("/").text


def test_a_broker_that_is_away_is_said_to_be_and_its_password_is_not(on_broker, token) -> None:
    browser = on_broker(f"amqp://waxseal:hunter2@127.0.0.1:{free_port()}/")
    browser.log_in(token("viewer"))
    answer = browser.get("/")

    assert (200, True, False) == (
        answer.status,
        "RabbitMQ does not answer the console" in answer.text,
        "hunter2" in answer.text,
    )


def test_processes_that_are_connected_are_listed_to_those_who_see_all(browser, database, token) -> None:
    browser.log_in(token("viewer"))
    names = ("waxseal ingest 7@node-1", "waxseal ingest 7@node-2", "waxseal unknown 1@x", "waxseal", "waxseal relay")
    sessions = [psycopg.connect(database.worker_url, application_name=name) for name in names]
    shown = browser.get("/").text
    for each in sessions:
        each.close()
    roles = shown.partition('<ul class="roles">')[2].partition("</ul>")[0]

    assert '<span class="role">ingest</span> <span class="state good">2 connected</span>' in roles
    assert "7@node-1, 7@node-2" in roles
    assert '<span class="role">relay</span> <span class="state">none</span>' in roles
    assert "unknown" not in roles


def test_a_tenants_own_see_neither_processes_nor_queues(browser, token) -> None:
    browser.post("/login", {"token": token("admin", "acme")})
    shown = browser.get("/t/acme").text

    assert (True, False, False) == tuple(word in shown for word in ("The route", "Processes", "Inbox"))


@pytest.fixture
def exported(browser: Browser, engine: Engine, acts: Engine, console_settings: Settings, token: Any, tmp_path: Any) -> int:
    """The job of an export that an operator began on its page, and that is done."""
    record(engine, [event("evt-1"), event("evt-2")], [])
    csrf = browser.log_in(token("operator"))
    begun = browser.post("/t/acme/ledger/exports/begin", {"csrf": csrf, "subject": " order-1 "})
    settings = console_settings.model_copy(update={"blobs": str(tmp_path)})

    def export(job: Run, arguments: Any) -> dict[str, Any]:
        return ledger_jobs.export(settings, "acme", arguments, (job.id, job.lease), lambda _done: None)

    job = take(acts, "test")
    assert job is not None
    assert "done" == run(job, list, export, threading.Event())
    assert begun.location.endswith(f"/t/acme/jobs/{job.id}")
    return job.id


def fetched(browser: Browser, id_: int, **form: str) -> Answer:
    return browser.post(f"/t/acme/jobs/{id_}/file", {**browser.get(f"/t/acme/jobs/{id_}").fields, **form})


def test_an_export_is_begun_on_a_page_and_its_file_is_given_to_who_says_why(browser, exported, database) -> None:
    listed = browser.get("/t/acme/ledger/exports").text
    without, given = fetched(browser, exported), fetched(browser, exported, reason="the customer asks")

    assert all(each in listed for each in (f'href="/t/acme/jobs/{exported}#file">Download', "order-1"))
    assert (422, 200) == (without.status, given.status)
    assert (2, f'attachment; filename="acme-{exported}.jsonl"') == (
        given.text.count('{"envelope"'),
        given.headers["content-disposition"],
    )
    assert [("export fetch", "the customer asks")] == database.rows("SELECT act, reason FROM audit WHERE act = 'export fetch'")


def test_an_export_is_not_for_viewers_nor_for_others_nor_for_ever(browser, exported, database, token) -> None:
    csrf = browser.log_in(token("viewer"))
    page = browser.get(f"/t/acme/jobs/{exported}").text
    refused = browser.post(f"/t/acme/jobs/{exported}/file", {"csrf": csrf, "reason": "to see"})
    csrf = browser.log_in(token("admin"))
    elsewhere = browser.post(f"/t/other/jobs/{exported}/file", {"csrf": csrf, "reason": "to see"})
    database.run("UPDATE job SET ended_at = now() - interval '25 h'; DELETE FROM job_file")
    gone = browser.post(f"/t/acme/jobs/{exported}/file", {"csrf": csrf, "reason": "to see"})

    assert (False, 403, 404, 404) == ("<button>Download" in page, refused.status, elsewhere.status, gone.status)
    browser.post("/t/acme/ledger/exports/begin", {"csrf": csrf})
    listed = browser.get("/t/acme/ledger/exports").text
    assert all(each in listed for each in ("erased after a day", "order-1", "everything", "queued"))


def test_the_page_of_the_ledger_names_the_verification_that_was_asked_for_there(browser, database, token) -> None:
    csrf = browser.log_in(token("operator"))
    before = browser.get("/t/acme/ledger").text
    browser.post("/t/acme/ledger/verify", {"csrf": csrf})
    begun = browser.get("/t/acme/ledger").text
    database.run(
        "UPDATE job SET state = 'done', ended_at = now(), result = %s", '{"entries": 3, "faults": 1, "verdict": "faults"}'
    )

    assert ("Asked for here" in before, '<span class="state waiting">queued' in begun) == (False, True)
    assert '<span class="state dead">faulty</span> 3 entries' in browser.get("/t/acme/ledger").text


def test_what_is_planned_for_later_is_tried_now_on_an_endpoints_page(browser, engine, database, token) -> None:
    endpoint = database.add_endpoint("crm", "http://127.0.0.1:1/")
    record(engine, [event("evt-1"), event("evt-2")], [endpoint], datetime.now(UTC) + timedelta(hours=1))
    path = "/t/acme/endpoints/crm"
    browser.log_in(token("viewer"))
    offered = [f"{path}/retry" in browser.get(path).text]
    refused = browser.get(f"{path}/retry").status
    csrf = browser.log_in(token("operator"))
    offered.append(f"{path}/retry" in browser.get(path).text)
    shown = browser.get(f"{path}/retry").text
    begun = browser.post(f"{path}/retry", {"csrf": csrf, "reason": "it is back"})

    assert ([False, True], 403) == (offered, refused)
    assert "2 tries to crm, planned for later, are made now" in shown
    assert [("retry", 2, "ann", "it is back")] == database.rows(
        "SELECT kind, total, job.who, reason FROM job JOIN audit ON audit.id = job.audit"
    )
    assert begun.location.endswith(f"/t/acme/jobs/{database.rows('SELECT id FROM job')[0][0]}")


@pytest.fixture
def erasable(browser: Browser, engine: Engine, acts: Engine, database: Any) -> str:
    """The address at which what is recorded of order-1 is erased."""
    record(engine, [event("evt-1"), event("evt-2", "order-1", b"secret")], [])
    return f"/t/acme/subjects/{database.rows('SELECT chain_id FROM chain')[0][0].hex}/erase"


def test_an_admin_has_a_subject_erased_by_its_number_and_follows_it(
    browser, erasable, database, console_settings, token
) -> None:
    browser.log_in(token("admin"))
    timeline = browser.get("/t/acme/subjects?subject=order-1").text
    page = browser.get(erasable)
    given = {**page.fields, "choice": "name", "reason": "request 17", "typed": "2"}
    wrong = [{"typed": "1"}, {"reason": ""}, {"reason": "of Order-1"}, {"count": "3"}, {"choice": "all"}]
    refused = [browser.post(erasable, {**given, **each}).status for each in wrong]
    begun = browser.post(erasable, given)
    job = begun.location.removeprefix(browser.base)
    waits = browser.get(job).text
    eraser = make_engine(database.eraser_url, pool_size=2)
    settings = console_settings.model_copy(update={"database_url": database.eraser_url})
    ErasureRequests(eraser, settings, NO_BLOBS, threading.Event()).turn()
    eraser.dispose()
    ended = browser.get(job).text

    assert f'href="{erasable}"' in timeline
    assert all(
        each in page.text for each in ("The content of 2 entries", "nobody can bring it back", "The ledger still verifies")
    )
    assert [422] * 5 == refused
    assert "It waits for the process eraser" in waits
    assert '<span class="state good">done' in ended
    assert [(None,)] == database.rows("SELECT subject FROM chain")
    assert [] == database.rows("SELECT FROM content JOIN entry USING (chain_id, seq) WHERE kind = 'event'")
    assert "intact" == ledger_jobs.verify(console_settings, "acme", OfLedger(), lambda _done: None)["verdict"]
    assert [("begun", "ann", "request 17")] == database.rows(
        "SELECT phase, who, reason FROM audit WHERE act = 'erase' AND phase = 'begun'"
    )
    assert 409 == browser.get(erasable).status


def test_erasing_is_for_admins_who_have_just_logged_in_where_it_is_not_left_to_the_command(
    browser, erasable, database, console_settings, token
) -> None:
    csrf = browser.log_in(token("operator"))
    operators = browser.get("/t/acme/subjects?subject=order-1").text
    statuses = [browser.get(erasable).status, browser.post(erasable, {"csrf": csrf}).status]
    browser.log_in(token("admin"))
    given = {**browser.get(erasable).fields, "choice": "name", "reason": "request 17", "typed": "2"}
    statuses.append(browser.get(erasable.replace("/acme/", "/other/")).status)
    database.run("UPDATE console_session SET fresh_at = now() - interval '6 min'")
    statuses += [browser.get(erasable).status, browser.post(erasable, given).status]
    with running_console(console_settings.model_copy(update={"erase_requests": False})) as url:
        elsewhere = Browser(url)
        elsewhere.log_in(token("admin"))
        left_to_command = elsewhere.get("/t/acme/subjects?subject=order-1").text
        statuses.append(elsewhere.get(erasable).status)

    assert (False, False) == (erasable in operators, erasable in left_to_command)
    assert [403, 403, 404, 403, 403, 409] == statuses
    assert [] == database.rows("SELECT FROM job")
    assert [(2,)] == database.rows("SELECT count(*) FROM audit WHERE outcome = 'refused'")
