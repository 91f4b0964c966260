"""The benchmark of growth: its report, that it resumes, and that it does not fill a disk."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg
import pytest
from click.testing import CliRunner

from ops.bench import growth
from ops.bench.growth import filled, rates
from ops.cli import main
from ops.errors import OpsError
from support.deliveries import claimed, event, record


@pytest.fixture(scope="module")
def report(small) -> dict[str, Any]:
    return growth.run(quick=True)


def test_it_reports_rates_and_bytes_at_each_size(report) -> None:
    results = report["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(report)
    assert ("growth", 80, 1) == (report["benchmark"], results["events_in_a_round"], results["rounds"])
    for name in ("ingest_per_s", "delivery_per_s", "ingest_wal_bytes", "delivery_wal_bytes", "vacuum_of_delivery_ms"):
        assert results[f"at_400_{name}"] > 0


def test_it_ends_with_the_rates_at_the_largest_size_divided_by_those_at_the_smallest() -> None:
    rounds = {100: [(10.0, 20.0), (10.0, 10.0), (20.0, 10.0)], 900: [(9.0, 20.0), (8.0, 5.0), (10.0, 11.0)]}
    found = {
        size: [{"ingest_per_s": i, "ingest_x_cpu_us": 100 + i, "delivery_per_s": d, "delivery_x_cpu_us": size} for i, d in each]
        for size, each in rounds.items()
    }
    results = rates._results(found, {key: {} for key in rounds}, {key: {"ingest": {}, "delivery": {}} for key in rounds}, 10)

    assert ["ratio_ingest_900_to_100", "ratio_delivery_900_to_100"] == list(results)[-2:]
    assert (0.8, 1.0) == (results["ratio_ingest_900_to_100"], results["ratio_delivery_900_to_100"])
    assert (1.02, 0.11) == (results["ratio_ingest_by_cpu_900_to_100"], results["ratio_delivery_by_cpu_900_to_100"])
    assert (10.0, 9.0) == (results["at_100_ingest_per_s"], results["at_900_ingest_per_s"])


def test_bytes_are_told_by_table_and_index_with_what_belongs_to_a_row(report) -> None:
    disk, ingest, delivery = report["results"]["tables"].values()

    assert {"all", "entry", "content", "delivery", "delivery_pkey", "leaf", "attempt"} <= set(disk)
    assert 400 < disk["content"]["400"] < 4000
    assert {"all", "entry", "content", "entry_fingerprint_key", "delivery"} <= set(ingest)
    assert {"attempt", "delivery"} <= set(delivery)
    assert "entry" not in delivery
    assert ingest["all"]["400"] == pytest.approx(sum(row["400"] for name, row in ingest.items() if name != "all"), rel=0.01)


def test_the_server_is_afterwards_as_it_was_before_it_was_filled(report, servers) -> None:
    with psycopg.connect(servers.database_url) as conn:
        asked = "SELECT name FROM pg_settings WHERE name = ANY(%s) AND sourcefile LIKE '%%auto.conf'"
        assert [] == conn.execute(asked, ([*filled.HASTE],)).fetchall()


def test_a_filling_that_was_cut_off_goes_on_where_it_said_it_was(tmp_path) -> None:
    told: list[str] = []
    filling = filled.Filling(SimpleNamespace(), tmp_path, told.append)  # type: ignore[arg-type]
    assert 0 == filling.filled
    filling._progress(1000, 1000)

    assert 1000 == filled.Filling(SimpleNamespace(), tmp_path, told.append).filled  # type: ignore[arg-type]
    assert ["filled with 1,000 of 1,000 events"] == told
    assert [0, 999, 0, 1000] == [int(filled.subject(n).removeprefix("filled-")) for n in (0, 999, 1000, 20_000)]


def test_what_a_filling_that_was_killed_had_leased_is_settled_by_the_next(cli, engine, database) -> None:
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1:1/")
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    database.rows("SELECT make_attempt_partitions(CAST(now() AT TIME ZONE 'UTC' AS date), 1)")
    record(engine, [event("e-1")], now=long_ago)
    claimed(engine, now=long_ago)
    filling = filled.Filling(SimpleNamespace(engine=engine), Path(), print)  # type: ignore[arg-type]
    filling._unfinished()
    filled._settle(engine)

    assert [("delivered",)] == database.rows("SELECT state FROM delivery")


def test_it_refuses_sizes_for_which_the_disk_has_no_room(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(psutil, "disk_usage", lambda _path: SimpleNamespace(free=3 * 2**30))
    rates.need_disk([100_000], Path(tmp_path / "not" / "there"))
    with pytest.raises(OpsError, match="GiB free"):
        rates.need_disk([100_000, 1_000_000], None)


def test_its_tables_are_printed_beneath_the_figures_and_sizes_are_options(report, monkeypatch) -> None:
    asked: dict[str, Any] = {}

    def run(**wanted: Any) -> dict[str, Any]:
        asked.update(wanted)
        return report

    monkeypatch.setattr(growth, "run", run)
    shown = CliRunner().invoke(main, ["bench", "growth", "--at", "1000", "--at", "2000"])
    whole = CliRunner().invoke(main, ["bench", "growth", "--json"])

    assert "bytes per event on disk" in shown.stdout
    assert "at 400" in shown.stdout
    assert {"quick": False, "at": (), "data": None} == asked
    assert report == json.loads(whole.stdout)
