from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.runtime.db import make_engine
from support.blobs import NO_BLOBS
from workers.ingest.writer import Writer


def test_a_writer_that_began_without_its_database_is_not_in_trouble_for_ever() -> None:
    """The pulse says whether Postgres answers; an idle process writes no batch that would end a trouble of the writer."""
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    writer = Writer(engine, None, NO_BLOBS, lambda: False)  # type: ignore[arg-type]
    writer.load()
    writer.close()
    engine.dispose()

    assert writer.trouble is None


@pytest.mark.parametrize(("endpoints", "sizes"), [(0, [1000]), (500, [1000]), (5_000, [100] * 10), (1_000_000, [1] * 1000)])
def test_a_batch_for_many_endpoints_is_written_in_parts(monkeypatch, endpoints, sizes) -> None:
    """A transaction that matches a thousand messages with 20,000 filters takes longer than Postgres lets it be idle."""
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    writer, written = Writer(engine, None, NO_BLOBS, lambda: False), []  # type: ignore[arg-type]
    known = {"many": [None] * endpoints, "few": [None]} if endpoints else {}
    monkeypatch.setattr(
        "workers.ingest.writer.catalog",
        SimpleNamespace(load=lambda *_: SimpleNamespace(version=2, sources={}, tenants={}, before_origins=())),
    )
    monkeypatch.setattr("workers.ingest.writer.subscriptions", lambda _catalog: known)
    monkeypatch.setattr(Writer, "_record", lambda _self, batch: written.append(list(batch)))
    nothing, batch = cast("Any", SimpleNamespace(decrypt=None)), cast("Any", list(range(1000)))

    writer._vault = nothing
    writer._refresh(nothing, 2)
    writer.write(batch)
    writer.close()
    engine.dispose()

    assert batch == [each for part in written for each in part]
    assert sizes == [len(part) for part in written]
