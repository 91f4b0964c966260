from ops.bench.measuring.results import percentiles


def test_percentiles_are_the_smallest_values_that_so_many_percent_do_not_exceed() -> None:
    assert {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99} == percentiles([ms / 1000 for ms in range(100, 0, -1)])
    assert {"p50_ms": 2, "p95_ms": 3, "p99_ms": 3} == percentiles([0.001, 0.002, 0.003])
    assert {"p50_ms": 7, "p95_ms": 7, "p99_ms": 7} == percentiles([0.007])
    assert {} == percentiles([])
