from ops.bench import console


def test_the_benchmark_of_the_console_asks_for_every_page_and_refuses_none(small) -> None:
    report = console.run(quick=True)
    results = report["results"]

    assert {"benchmark", "machine", "versions", "results"} == set(report)
    assert ("console", 2000) == (report["benchmark"], results["events"])
    assert [] == results["first_refused"]
    assert 0 == results["refused"]
    assert results["paths"] > 40
    for name in ("pages_p50_ms", "pages_p95_ms", "pages_p99_ms", "/t/{tenant} p95_ms", "events by id p95_ms"):
        assert results[name] > 0
    for name in ("filled_per_s", "indexed_per_s", "append_alone_per_s", "append_beside_readers_per_s"):
        assert results[name] > 0
    assert {"ratio_append_beside_readers", "index_bytes_per_event", "database_mib"} <= set(results)
