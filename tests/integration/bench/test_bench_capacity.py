"""The benchmark of capacity: what each process spends is measured, and what more cores carry follows from it."""

import pytest

from ops.bench import capacity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

USERS = ("ingress", "ingest", "relay", "deliver", "postgresql", "rabbitmq")


def test_what_more_cores_carry_follows_from_what_each_process_spends(small) -> None:
    results = capacity.run(quick=True, cores=[2, 20])["results"]
    carried, cores, _processes = results["tables"].values()

    assert results["all_cpu_us"] > 0
    assert results["all_cpu_us"] == pytest.approx(sum(results[f"{user}_cpu_us"] for user in USERS), abs=1)
    assert carried["events per second"]["2"] == pytest.approx(2 * 0.7e6 / results["all_cpu_us"], rel=0.01)
    assert carried["events per second"]["20"] == pytest.approx(10 * carried["events per second"]["2"], rel=0.01)
    assert sum(row["20"] for row in cores.values()) == pytest.approx(20 * 0.7, rel=0.01)
