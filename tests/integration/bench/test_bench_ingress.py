import pytest

from ops.bench import ingress


@pytest.mark.slow
def test_the_benchmark_of_the_ingress_reports_what_the_contract_names(small) -> None:
    report = ingress.run(quick=True)
    results = report["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(report)
    assert "ingress" == report["benchmark"]
    assert {"python", "uvicorn", "pika", "postgresql", "rabbitmq"} <= set(report["versions"])
    latencies = {f"p{p}_{at}_ms" for p in (50, 95, 99) for at in ("flooded", "at_200", "at_1000")}
    assert latencies | {"acks_per_s", "floor_per_s", "ratio_to_floor", "rss_mib", "uvicorn_per_s", "ratio_to_uvicorn"} <= set(
        results
    )
    cpu = {f"raced_{whose}_cpu_us" for whose in ("python", "rabbitmq", "client")}
    assert cpu | {"uvicorn_python_cpu_us", "uvicorn_client_cpu_us"} <= set(results)
    assert all(results[name] > 0 for name in results if not name.endswith("_postgres_cpu_us"))
    assert results["p50_at_200_ms"] <= results["p95_at_200_ms"] <= results["p99_at_200_ms"]
