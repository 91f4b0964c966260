import json

import pytest

from ops.bench import console
from ops.bench.console import page_times
from ops.errors import OpsError
from ops.runtime.db import make_engine


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
    assert results["heavy_pages_meanwhile_p95_ms"] > 0
    assert {"ratio_append_beside_readers", "index_bytes_per_event", "database_mib"} <= set(results)


def test_a_folder_that_is_kept_is_filled_once_and_to_its_end(small, shared_database, tmp_path) -> None:
    engine = make_engine(shared_database.url, pool_size=1)
    with pytest.raises(OpsError, match="not filled"):  # there are entries, and nothing says that they are all
        page_times._ready(engine, tmp_path, 2000)
    (tmp_path / "filled.json").write_text(json.dumps({"events": 2000, "filled_per_s": 7}))
    told = page_times._ready(engine, tmp_path, 2000)
    with pytest.raises(OpsError, match="--events 2000"):
        page_times._ready(engine, tmp_path, 3000)
    engine.dispose()

    assert {"events": 2000, "filled_per_s": 7} == told
