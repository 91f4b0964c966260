"""The benchmark of claims: its report, and that it shows the plans of a claim's statements."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.bench import claims
from ops.cli import main


@pytest.fixture(scope="module")
def report(small) -> dict[str, Any]:
    return claims.run(quick=True, rows=50_000)


def test_it_reports_what_the_contract_names_and_the_time_of_a_claim_in_both_tables(report) -> None:
    results = report["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(report)
    assert ("claims", 20, 500, 5000) == (
        report["benchmark"],
        results["endpoints"],
        results["deliveries_in_a_claim"],
        results["many_delivered"],
    )
    for name in ("few", "many"):
        assert 0 < results[f"p50_{name}_ms"] <= results[f"p95_{name}_ms"] <= results[f"p99_{name}_ms"]
    assert results["many_to_few"] > 0
    assert results["flat"] == (0.8 <= results["many_to_few"] <= 1.2)


def test_it_gives_the_plan_of_every_statement_of_a_claim_and_none_reads_what_was_delivered(report) -> None:
    plans = report["results"]["plans"]

    assert {"survey", "look", "claim", "lock_free", "take_tokens"} <= set(plans)
    assert "delivery_by_due" in "\n".join(plans["claim"])
    assert "delivery_by_due" in "\n".join(plans["survey"])
    assert [] == [name for name, lines in plans.items() if "Seq Scan on delivery" in "\n".join(lines)]
    assert any("actual rows=500" in line for line in plans["claim"])


def shown(monkeypatch: pytest.MonkeyPatch, report: dict[str, Any], *options: str) -> tuple[Result, dict[str, Any]]:
    """The command's output for a report, and the arguments that it passed on."""
    asked: dict[str, Any] = {}

    def run(**wanted: Any) -> dict[str, Any]:
        asked.update(wanted)
        return report

    monkeypatch.setattr(claims, "run", run)
    return CliRunner().invoke(main, ["bench", "claims", *options]), asked


def test_plans_are_printed_beneath_the_figures(report, monkeypatch) -> None:
    ended, asked = shown(monkeypatch, report, "--rows", "1000", "--quick")
    figures, *plans = ended.stdout.split("\n\n")

    assert {"quick": True, "rows": 1000} == asked
    assert f"many_to_few\t{report['results']['many_to_few']}" in figures
    assert "plans" not in figures
    assert list(report["results"]["plans"]) == [plan.partition("\n")[0] for plan in plans]


def test_five_million_rows_are_what_it_takes_unless_it_is_told_otherwise(report, monkeypatch) -> None:
    ended, asked = shown(monkeypatch, report, "--json")

    assert {"quick": False, "rows": 5_000_000} == asked
    assert '"plans": {"survey"' in ended.stdout
