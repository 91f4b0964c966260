from ops.bench import verify


def test_the_benchmark_of_verify_compares_all_ways_with_a_bare_loop_over_the_same_rows(small) -> None:
    report = verify.run(quick=True)
    results = report["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(report)
    assert ("verify", 600) == (report["benchmark"], results["entries"])
    for name in ("bare", "whole", "incremental", "two_jobs"):
        assert results[f"{name}_per_s"] > 0
    assert {"ratio_to_bare", "ratio_to_bare_by_clock", "ratio_two_jobs_to_one"} <= set(results)
    assert results["ratio_two_jobs_cpu_to_one"] > 1, "a second process starts, and its CPU is counted"
    assert 0 < results["whole_cores"] < 3
    assert 20 < results["whole_mib"] < 150
