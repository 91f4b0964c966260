"""The benchmark of ingest: its report, and that the race with its peers is fair."""

from typing import Any

import pytest
from sqlalchemy import make_url

from ops.bench import ingest
from ops.bench.configured_system import fresh_database, plain_engine
from ops.bench.measuring import cpu
from ops.runtime.db import make_engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


#: Those that race here: each program once, in one process or in two; and those whose figures they lend to the report.
LENT_TO = {
    "one_process": ["two_processes"],
    "sequenced": [],
    "floor": [],
    "dramatiq": ["dramatiq_two_processes"],
    "celery_two_processes": ["celery"],
}


@pytest.fixture(scope="module")
def ingested(small) -> dict[str, Any]:
    contestants, figures = [one for one in ingest._contestants() if one.name in LENT_TO], ingest._figures

    def lent(*race: Any) -> dict[str, list[dict[str, float]]]:
        found = figures(*race)
        assert LENT_TO.keys() == found.keys()
        return found | {other: found[name] for name, others in LENT_TO.items() for other in others}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "_contestants", lambda: contestants)
        patch.setattr(ingest, "_figures", lent)
        return ingest.run(quick=True)


def test_the_race_of_ingest_reports_each_contestant_and_what_it_cost(ingested) -> None:
    results = ingested["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(ingested)
    for name in (
        "one_process",
        "sequenced",
        "two_processes",
        "floor",
        "dramatiq",
        "celery",
        "dramatiq_two_processes",
        "celery_two_processes",
    ):
        assert results[f"{name}_events_per_s"] > 0
        assert all(results[f"{name}_{user}_cpu_us"] >= 0 for user in ("python", "postgres", "rabbitmq"))
    # For so few events a sequencer takes less than a tick of the kernel's clock.
    assert all(results[f"sequenced_{name}_cpu_us"] >= 0 for name in ("sequencer", "sequencer_postgres"))
    assert results["ratio_beside_sequencer_by_clock"] > 0
    assert 0 <= results["sequencer_cpu_share"] <= 1  # all of it, if the rest took less than a tick
    assert all(results[f"{name}_{what}_bytes"] > 0 for name in ("one_process", "dramatiq") for what in ("wal", "disk"))
    assert results["ratio_to_dramatiq"] == pytest.approx(
        results["one_process_events_per_s"] / results["dramatiq_events_per_s"],
        rel=0.02,
        abs=0.01,  # both are rounded
    )
    assert {
        "ratio_beside_sequencer_by_cpu",
        "ratio_to_celery",
        "ratio_to_floor",
        "ratio_two_to_one_process",
        "ratio_two_to_two_of_dramatiq",
    } <= set(results)


def test_each_contestant_of_ingest_has_as_many_processes_as_ours() -> None:
    contestants = ingest._contestants()

    assert [1, 1, 1, 1] == [one.processes for one in contestants if one.name in ("one_process", "floor", "dramatiq", "celery")]
    assert [2, 2, 2] == [one.processes for one in contestants if one.name.endswith("two_processes")]
    assert ["sequenced"] == [one.name for one in contestants if one.sequenced]
    raced = {(*one.command, one.sequenced) for one in contestants if one.name in LENT_TO}
    assert raced == {(*one.command, one.sequenced) for one in contestants}


def test_what_a_sequencer_costs_is_the_median_of_pairs() -> None:
    def found(rate: float, cpu: float, sequencer: float = 0.0) -> dict[str, float]:
        costs = {"python_cpu_us": cpu, "postgres_cpu_us": 30.0, "rabbitmq_cpu_us": 10.0}
        beside = {"sequencer_cpu_us": sequencer, "sequencer_postgres_cpu_us": 3.0} if sequencer else {}
        return {"events_per_s": rate, **costs, **beside}

    alone = [found(10_000, 60), found(5_000, 120), found(9_000, 60)]
    beside = [found(9_500, 60, 2), found(2_500, 155, 2), found(9_900, 60, 97)]

    assert {
        "ratio_beside_sequencer_by_clock": 0.95,
        "ratio_beside_sequencer_by_cpu": 0.8,
        "sequencer_cpu_share": 0.048,
    } == ingest._beside_sequencer(alone, beside)


def test_a_peers_pool_has_none_of_the_costs_of_ours(servers) -> None:
    plain, ours = plain_engine(servers.database_url, 8), make_engine(servers.database_url, pool_size=8)
    try:
        with plain.connect() as conn:
            assert "auto" == conn.exec_driver_sql("SHOW plan_cache_mode").scalar_one()
        with ours.connect() as conn:
            assert "force_custom_plan" == conn.exec_driver_sql("SHOW plan_cache_mode").scalar_one()
        assert not plain.pool._pre_ping
        assert not plain.pool.dispatch.checkout  # no check of a connection when it is checked out
        assert ours.pool.dispatch.checkout
    finally:
        plain.dispose()
        ours.dispose()


def test_fresh_tables_are_a_copy_that_nobody_used(servers, database) -> None:
    database.add_tenant("raced")
    database.close()  # a database to which there are connections cannot be copied
    url = fresh_database(database.url)

    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as conn:
            assert ["raced"] == conn.exec_driver_sql("SELECT name FROM tenant").scalars().all()
            name = conn.exec_driver_sql("SELECT current_database()").scalar_one()
    finally:
        engine.dispose()
    assert make_url(url).database == name != make_url(database.url).database


def test_cpu_per_event_is_told_by_process_and_adds_up_what_has_the_same_name() -> None:
    before, after = cpu.Cpu((1.0, 2.0), 5.0, 7.0), cpu.Cpu((1.5, 2.25), 5.5, 7.0)

    assert {"python_cpu_us": 750.0, "postgres_cpu_us": 500.0, "rabbitmq_cpu_us": 0.0} == cpu.cpu_per_event(
        ["python", "python"], before, after, 1000
    )
    assert {"one_cpu_us": 500.0, "other_cpu_us": 250.0, "postgres_cpu_us": 500.0, "rabbitmq_cpu_us": 0.0} == cpu.cpu_per_event(
        ["one", "other"], before, after, 1000
    )
