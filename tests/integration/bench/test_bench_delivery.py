"""The benchmark of delivery: its report on both sides of the race, and on latencies."""

from typing import Any

import pytest

from ops.bench import delivery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def delivered(small) -> dict[str, Any]:
    return delivery.run(quick=True)


def test_the_race_of_delivery_reports_both_sides_and_what_each_process_cost(delivered) -> None:
    results = delivered["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(delivered)
    assert {f"raced_{user}_cpu_us" for user in ("deliver", "relay", "postgres", "rabbitmq")} <= set(results)
    assert {f"dramatiq_{user}_cpu_us" for user in ("one", "other", "postgres", "rabbitmq")} <= set(results)
    assert results["ratio_to_dramatiq"] == pytest.approx(
        results["raced_deliveries_per_s"] / results["dramatiq_deliveries_per_s"],
        rel=0.02,
        abs=0.01,  # both are rounded
    )
    assert {f"p{p}_at_{rate}_per_s_ms" for p in (50, 95, 99) for rate in (50, 200, 1000)} <= set(results)
    assert results["deliveries_per_s"] > 0
    assert results["drain_s"] > 0
