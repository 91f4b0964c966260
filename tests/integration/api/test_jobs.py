"""Jobs: counted by the predicate of their act, done in chunks under a lease, resumed where they stopped, done once."""

import json
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ops.admin import endpoints
from ops.admin.bulk import Named
from ops.admin.jobs import jobs, ledger_jobs
from ops.admin.jobs.arguments import OfLedger
from ops.admin.jobs.erasing import step
from ops.admin.jobs.running import Run, clean, run, take
from ops.admin.search.cursors import BadCursor
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.store.dead_letters import dead_letters
from schemas.access import Actor
from schemas.dead_letter import DeadLetter
from support.blobs import NO_BLOBS
from support.deliveries import event, record
from support.waiting import wait_for
from workers.console.job_runner import JobRunner
from workers.eraser.erasure_requests import ErasureRequests

ANNA = Actor("anna")
NOW = datetime.now(UTC)


class Never(threading.Event):
    """Nobody asks to stop, and nobody waits."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


@pytest.fixture(autouse=True)
def _tenants(database) -> None:
    database.add_tenant("acme")
    database.add_tenant("other")


@pytest.fixture
def billing(database) -> int:
    return database.add_endpoint("billing", "http://127.0.0.1:1/")


@pytest.fixture
def runner(settings: Settings, acts: Engine) -> Iterator[JobRunner]:
    runner = JobRunner(settings, acts)
    yield runner
    runner.close()


def bury(engine: Engine, count: int, tenant: str | None = "acme", reason: str = "missing_id") -> None:
    letters = [DeadLetter("admit", reason, "an id is needed", tenant, "shop", body=b"{}") for _ in range(count)]
    with transaction(engine) as conn:
        dead_letters.bury(conn, letters, NOW)


def ended(engine: Engine, id: int) -> dict[str, Any]:
    wait_for(lambda: (jobs.show(engine, id) or {})["ended_at"] is not None)
    return jobs.show(engine, id) or {}


def adds_up(job: dict[str, Any]) -> bool:
    return job["total"] == job["done"] + sum(job["left"].values())


def undone(_job: Run, _arguments: Any) -> dict[str, Any]:
    raise AssertionError("this job is not on the ledger")


def published(messages: Any) -> list[bool]:
    return [True] * len(messages)


def states(database) -> dict[str, int]:
    return dict(database.rows("SELECT state, count(*) FROM dead_letter GROUP BY 1"))


def test_a_job_discards_what_was_counted_and_the_audit_says_so(database, engine, acts, reads, runner) -> None:
    bury(engine, 30)
    bury(engine, 5, reason="unknown_source")
    bury(engine, 7, tenant="other")
    counted = jobs.preview(reads, "discard", "acme", {"reason": "missing_id"})

    done = ended(reads, jobs.start(acts, "discard", "acme", {"reason": "missing_id"}, ANNA))

    assert (30, 5, 30) == (counted["count"], len(counted["samples"]), done["total"])
    assert ("done", 30, {}) == (done["state"], done["done"], done["left"])
    assert {"discarded": 30, "open": 12} == states(database)
    assert [
        ("anna", "dead discard", {"tenant": "acme", "reason": "missing_id"}, 30, "begun"),
        ("anna", "dead discard", {"tenant": "acme", "reason": "missing_id"}, 30, "done"),
    ] == database.rows("SELECT who, act, filter, count, phase FROM audit ORDER BY id")
    assert {("anna",)} == set(database.rows("SELECT decided_by FROM dead_letter WHERE state = 'discarded'"))


def test_a_job_of_a_tenant_touches_no_other_ones_dead_letters(database, engine, acts, reads, runner) -> None:
    bury(engine, 3)
    bury(engine, 3, tenant="other")
    bury(engine, 3, tenant=None)

    assert 3 == ended(reads, jobs.start(acts, "discard", "other", {}, ANNA))["done"]
    assert {(None,), ("acme",)} == set(database.rows("SELECT DISTINCT tenant FROM dead_letter WHERE state = 'open'"))
    assert 6 == ended(reads, jobs.start(acts, "discard", None, {}, ANNA))["done"]


def test_what_is_buried_after_the_count_is_left_to_the_next_job(database, engine, acts, settings) -> None:
    bury(engine, 4)
    id = jobs.start(acts, "discard", "acme", {}, ANNA)
    bury(engine, 3)

    run(taken(acts), published, undone, threading.Event())

    assert ("done", 4) == (jobs.show(acts, id)["state"], jobs.show(acts, id)["done"])
    assert {"discarded": 4, "open": 3} == states(database)


def test_what_others_decided_meanwhile_makes_the_numbers_add_up(database, engine, acts) -> None:
    bury(engine, 4)
    id = jobs.start(acts, "discard", "acme", {}, ANNA)
    database.run("UPDATE dead_letter SET state = 'replayed', decided_at = now(), decided_by = 'x' WHERE id = 2")

    run(taken(acts), published, undone, threading.Event())

    job = jobs.show(acts, id)
    assert (3, {"others decided or changed them meanwhile": 1}, True) == (job["done"], job["left"], adds_up(job))


def taken(engine: Engine) -> Run:
    job = take(engine, "test")
    assert job is not None
    return job


def test_of_two_consoles_one_runs_the_job_and_one_that_lost_its_lease_does_nothing_more(database, engine, acts) -> None:
    """The first stands still between two chunks for longer than its lease; the second does the rest."""
    bury(engine, 20)
    id = jobs.start(acts, "discard", "acme", {"rate": 40}, ANNA)  # chunks of 10
    first = taken(acts)
    second: list[Run] = []

    class Frozen(threading.Event):
        """Between its chunks the first console stands still."""

        def wait(self, timeout: float | None = None) -> bool:
            database.run("UPDATE job SET lease_until = now() - interval '1 s'")
            second.append(taken(acts))
            run(second[0], published, undone, threading.Event())
            return False

    assert take(acts, "third") is None
    assert run(first, published, undone, Frozen()) is None
    job = jobs.show(acts, id)
    assert ("done", 20, 20, {}) == (job["state"], job["done"], job["total"], job["left"])
    assert {"discarded": 20} == states(database)
    assert [(20,)] == database.rows("SELECT count FROM audit WHERE begun IS NOT NULL")


def test_a_console_that_is_killed_in_the_middle_leaves_the_rest_to_the_next_one(database, engine, acts, start) -> None:
    bury(engine, 400)
    id = jobs.start(acts, "discard", "acme", {"rate": 100}, ANNA)
    settings = {"database_url": database.console_url, "console_port": 0}
    first = start("console", **settings)
    wait_for(lambda: (jobs.show(acts, id) or {})["done"] > 0)

    first.send_signal(signal.SIGKILL)
    first.wait(10)
    between = jobs.show(acts, id)
    assert ("running", states(database)["discarded"]) == (between["state"], between["done"])
    database.run("UPDATE job SET lease_until = now()")  # what half a minute does
    start("console", **settings)
    job = ended(acts, id)

    assert ("done", 400, {}) == (job["state"], job["done"], job["left"])
    assert {"discarded": 400} == states(database)
    assert between["owner"] != job["owner"]
    verified = ended(acts, jobs.start(acts, "verify", "acme", {}, ANNA))  # in a process of the console, which `up` has forked
    assert ("done", "nothing") == (verified["state"], verified["result"]["verdict"]), verified


def test_a_console_that_is_told_to_end_puts_its_job_back_at_once(database, engine, acts, settings) -> None:
    bury(engine, 400)
    id = jobs.start(acts, "discard", "acme", {"rate": 100}, ANNA)
    runner = JobRunner(settings, acts)
    wait_for(lambda: jobs.show(acts, id)["done"] > 0)

    runner.close()

    job = jobs.show(acts, id)
    assert ("queued", states(database)["discarded"]) == (job["state"], job["done"])


def test_a_cancelled_job_ends_after_its_chunk_and_what_it_did_stays_done(database, engine, acts, runner) -> None:
    bury(engine, 400)
    id = jobs.start(acts, "discard", "acme", {"rate": 100}, ANNA)
    wait_for(lambda: jobs.show(acts, id)["done"] > 0)

    assert jobs.cancel(acts, id, Actor("ben"))
    job = ended(acts, id)

    assert ("cancelled", "ben", True) == (job["state"], job["cancelled_by"], 0 < job["done"] < 400)
    assert states(database)["discarded"] == job["done"]
    assert not jobs.cancel(acts, id, ANNA)
    assert [("anna", "dead discard", job["done"]), ("ben", "job cancel", 1)] == database.rows(
        "SELECT who, act, count FROM audit WHERE phase = 'done' ORDER BY act"
    )


def test_a_job_that_is_cancelled_before_it_begins_does_nothing(database, engine, acts, settings) -> None:
    bury(engine, 4)
    id = jobs.start(acts, "discard", "acme", {}, ANNA)

    assert jobs.cancel(acts, id, ANNA)
    assert take(acts, "test") is None
    assert ("cancelled", 0, {"open": 4}) == (jobs.show(acts, id)["state"], jobs.show(acts, id)["done"], states(database))


def test_a_job_at_which_processes_die_is_given_up(database, engine, acts) -> None:
    bury(engine, 4)
    id = jobs.start(acts, "discard", "acme", {}, ANNA)
    for _ in range(5):
        assert take(acts, "dies") is not None
        database.run("UPDATE job SET lease_until = now() - interval '1 s'")

    assert "failed" == run(taken(acts), published, undone, threading.Event())
    assert "before it got any further" in jobs.show(acts, id)["error"]


def test_replayed_messages_go_through_the_broker_and_without_one_the_job_fails_clearly(
    database, engine, acts, settings, channel
) -> None:
    bury(engine, 3, reason="unknown_source")
    without = JobRunner(settings.model_copy(update={"amqp_url": ""}), acts)
    failed = ended(acts, jobs.start(acts, "replay", "acme", {}, ANNA))
    without.close()
    runner = JobRunner(settings, acts)
    job = ended(acts, jobs.start(acts, "replay", "acme", {}, ANNA))
    runner.close()

    assert ("failed", 0) == (failed["state"], failed["done"])
    assert "WAXSEAL_AMQP_URL: not set" in failed["error"]
    assert adds_up(job)
    assert "done" == job["state"]


def test_what_failed_since_a_time_is_sent_again_and_its_dead_letters_are_closed(
    database, engine, acts, reads, billing, runner
) -> None:
    for hours in (5, 1):
        record(engine, [event(f"e-{hours}-{n}", f"s-{n}") for n in range(3)], [billing], NOW - timedelta(hours=hours))
    database.run("UPDATE delivery SET state = 'dead', next_attempt_at = NULL, settled_at = now()")
    with transaction(engine) as conn:
        letters = [DeadLetter("deliver", "exhausted", "503", "acme", "shop", billing, id) for id in range(1, 7)]
        dead_letters.bury(conn, letters, NOW)
    wanted = {"endpoint": "billing", "since": (NOW - timedelta(hours=2)).isoformat()}
    counted = jobs.preview(reads, "redeliver", "acme", wanted)

    job = ended(acts, jobs.start(acts, "redeliver", "acme", wanted, ANNA))

    assert (3, 3, {"dead"}) == (counted["count"], len(counted["samples"]), {each["state"] for each in counted["samples"]})
    assert ("done", 3, {}) == (job["state"], job["done"], job["left"])
    assert [(1, "dead"), (2, "dead"), (3, "dead"), (4, "pending"), (5, "pending"), (6, "pending")] == database.rows(
        "SELECT id, state FROM delivery ORDER BY id"
    )
    assert {"open": 3, "replayed": 3} == states(database)


def test_what_is_planned_for_later_is_tried_now_and_nothing_else(database, engine, acts, reads, billing, settings) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(6)], [billing], NOW)
    database.run("UPDATE delivery SET next_attempt_at = now() + interval '1 hour' WHERE id <= 4")
    wanted = {"endpoint": "billing", "ids": [2, 3, 4, 5]}
    counted = jobs.preview(reads, "retry", "acme", wanted)
    id = jobs.start(acts, "retry", "acme", wanted, ANNA)
    database.run("UPDATE delivery SET next_attempt_at = now() + interval '1 hour' WHERE id = 6")  # fails after the count

    run(taken(acts), published, undone, threading.Event())

    job = jobs.show(acts, id)
    assert (3, [2, 3, 4]) == (counted["count"], [each["id"] for each in counted["samples"]])
    assert ("done", 3, {}) == (job["state"], job["done"], job["left"])
    assert [(1,), (6,)] == database.rows("SELECT id FROM delivery WHERE next_attempt_at > now() ORDER BY id")
    assert [("retry", 3)] == database.rows("SELECT act, count FROM audit WHERE phase = 'done'")


def test_an_eraser_that_dies_in_an_erasure_leaves_the_rest_to_the_next_one(database, engine, acts, billing, settings) -> None:
    """Each batch is erased whole, with its entry, or not at all; what is recorded after the request stays."""
    record(engine, [event(f"e-{n}", "s-1") for n in range(6)], [billing], NOW)
    eraser = make_engine(database.eraser_url, pool_size=3)
    (chain,) = database.rows("SELECT chain_id FROM chain")[0]
    wanted = {"chain": chain.hex, "reason": "request 17", "rate": 8}  # chunks of 2
    with pytest.raises(OpsError, match="would be on 6 now, and not on 5"):
        jobs.start(acts, "erase", "acme", wanted, ANNA, expected=5)
    with pytest.raises(OpsError, match="no such chain"):
        jobs.start(acts, "erase", "other", wanted, ANNA)
    id = jobs.start(acts, "erase", "acme", wanted, ANNA, expected=6)
    record(engine, [event("late", "s-1")], [billing], NOW)

    def dies(*_given: Any) -> Any:
        raise KeyboardInterrupt

    keys = {"acme": database.vault.decrypt(database.rows("SELECT fingerprint_key FROM tenant WHERE name = 'acme'")[0][0])}
    job, calls = take(eraser, "dies", kinds=["erase"]), [step(keys), dies]

    def once(*given: Any) -> Any:
        return calls.pop(0)(*given)

    assert job is not None
    with pytest.raises(KeyboardInterrupt):
        run(job, published, undone, Never(), {"erase": once})
    between = jobs.show(acts, id)
    database.run("UPDATE job SET lease_until = now()")
    ErasureRequests(eraser, settings, NO_BLOBS, Never()).turn()
    eraser.dispose()

    job = jobs.show(acts, id)
    assert ("running", 2) == (between["state"], between["done"])
    assert ("done", 6, 6) == (job["state"], job["done"], job["result"]["entries"]), job
    assert [("late",)] == database.rows(
        "SELECT id_of(attributes) FROM content JOIN entry USING (chain_id, seq) WHERE kind = 'event'"
    )
    assert [(3,)] == database.rows("SELECT count(*) FROM entry WHERE kind = 'erasure'")
    told = json.loads(database.rows("SELECT body FROM content JOIN entry USING (chain_id, seq) WHERE kind = 'erasure'")[0][0])
    assert ("anna", "request 17") == (told["by"], told["reason"])
    assert [("begun", 6), ("done", 6)] == database.rows("SELECT phase, count FROM audit WHERE act = 'erase' ORDER BY id")
    assert "intact" == ledger_jobs.verify(settings, "acme", OfLedger(), lambda _done: None)["verdict"]


def test_an_eraser_that_carries_out_no_requests_says_so(database, engine, acts, billing, settings) -> None:
    record(engine, [event("e-1", "s-1")], [billing], NOW)
    (chain,) = database.rows("SELECT chain_id FROM chain")[0]
    id = jobs.start(acts, "erase", "acme", {"chain": chain.hex, "reason": "request 17"}, ANNA)
    eraser = make_engine(database.eraser_url, pool_size=3)

    ErasureRequests(eraser, settings.model_copy(update={"erase_requests": False}), NO_BLOBS, Never()).turn()

    assert ("failed", 0) == (jobs.show(acts, id)["state"], jobs.show(acts, id)["done"])
    assert "WAXSEAL_ERASE_REQUESTS" in jobs.show(acts, id)["error"]
    with pytest.raises(DBAPIError, match="permission denied"), transaction(eraser) as conn:
        jobs.store.add(conn, "erase", "acme", {"chain": chain.hex, "reason": "x"}, "eraser", 1, {}, 1)
    eraser.dispose()


def test_what_an_endpoint_missed_is_discarded_before_it_is_enabled_or_replayed_after(
    database, engine, acts, billing, runner
) -> None:
    endpoints.disable(acts, Named("acme", "billing", "anna"), "they move")
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)], [billing], NOW, state="disabled")
    assert {("paused", 5)} == set(database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))

    with pytest.raises(OpsError, match="is disabled: enable it"):
        jobs.start(acts, "endpoint_replay", "acme", {"endpoint": "billing"}, ANNA)
    asks = Actor("anna", "token", "t-1")
    job = ended(acts, jobs.start(acts, "endpoint_discard", "acme", {"endpoint": "billing", "enable": True}, asks))

    assert ("done", 5, {}) == (job["state"], job["done"], job["left"])
    assert [("active",)] == database.rows("SELECT state FROM endpoint")
    assert [("anna", "token", "t-1")] == database.rows("SELECT who, means, principal FROM audit WHERE act = 'endpoint enable'")
    assert {("discarded", 5)} == set(database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))

    database.run("UPDATE delivery SET state = 'paused', settled_at = NULL, error = NULL")
    job = ended(acts, jobs.start(acts, "endpoint_replay", "acme", {"endpoint": "billing"}, ANNA))
    assert ("done", 5, {("pending",)}) == (job["state"], job["done"], set(database.rows("SELECT DISTINCT state FROM delivery")))


def test_a_ledger_is_verified_and_exported_by_another_process_and_the_file_goes_after_a_day(
    database, engine, acts, billing, runner
) -> None:
    record(engine, [event(f"e-{n}", f"s-{n % 3}") for n in range(9)], [billing])
    verified = ended(acts, jobs.start(acts, "verify", "acme", {}, ANNA))
    exported = ended(acts, jobs.start(acts, "export", "acme", {"subject": "s-1"}, ANNA))
    _, lease = jobs.file_of(acts, exported["id"])
    lines = b"".join(jobs.file_parts(acts, exported["id"], lease)).splitlines()

    assert ("done", 9, "intact") == (verified["state"], verified["total"], verified["result"]["verdict"]), verified
    assert (3, 3) == (exported["done"], exported["result"]["entries"])
    assert exported["result"]["bytes"] == sum(len(line) + 1 for line in lines)
    clean(acts, 3600, 86_400)
    jobs.file_of(acts, exported["id"])
    clean(acts, 0, 86_400)
    with pytest.raises(OpsError, match="has no file"):
        jobs.file_of(acts, exported["id"])
    clean(acts, 0, 0)
    assert [] == database.rows("SELECT id FROM job")


def test_jobs_are_listed_in_pages_newest_first_and_only_the_tenants_own(database, engine, acts, reads) -> None:
    ids = [jobs.start(acts, "discard", tenant, {}, ANNA) for tenant in ("acme", "other", "acme", None, "acme")]
    first = jobs.listed(reads, "acme", None, 2)
    second = jobs.listed(reads, "acme", first.next, 2)

    assert [[ids[4], ids[2]], [ids[0]]] == [[each["id"] for each in page.rows] for page in (first, second)]
    assert (None, 5) == (second.next, len(jobs.listed(reads, None, None, 5).rows))
    with pytest.raises(BadCursor):
        jobs.listed(reads, "other", first.next, 2)


@pytest.mark.parametrize(
    ("kind", "tenant", "arguments", "told"),
    [
        ("export", None, {}, "is of one tenant"),
        ("discard", "acme", {"tenant": "other"}, "tenant: Extra inputs"),
        ("discard", "acme", {"endpoint": "nope"}, "no endpoint 'nope'"),
        ("discard", "nobody", {}, "no tenant 'nobody'"),
        ("discard", "acme", {"rate": 0}, "rate: "),
        ("redeliver", "acme", {"endpoint": "billing"}, "since: Field required"),
        ("verify", None, {"subject": "s-1"}, "a subject is of one tenant"),
    ],
)
def test_what_a_job_cannot_be_given_is_refused_before_anything_is_written(
    database, acts, kind, tenant, arguments, told
) -> None:
    with pytest.raises(OpsError, match=told):
        jobs.start(acts, kind, tenant, arguments, ANNA)
    assert [(0, 0)] == database.rows("SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM audit)")
