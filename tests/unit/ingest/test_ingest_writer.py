from types import SimpleNamespace
from typing import Any, cast

import pytest

from ops.runtime.db import make_engine
from schemas.entry import BrokenChain
from schemas.event import Event
from support.blobs import NO_BLOBS
from workers.ingest import chains_aside
from workers.ingest.chains_aside import ChainsAside
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


def test_chains_that_cannot_be_read_are_looked_at_again_soon_after_postgres_stood_still(monkeypatch) -> None:
    """A tenth of the time for looks would be a rest of ten minutes after a look that took one."""
    now, looks = [1000.0], []

    def stood_still(_engine: object, chains: Any) -> Any:
        looks.append(now[0])
        now[0] += 60.0
        return {key: BrokenChain("acme", "order-1", None, "unreadable") for key in chains}

    monkeypatch.setattr(chains_aside, "_broken", stood_still)
    monkeypatch.setattr(chains_aside, "time", SimpleNamespace(monotonic=lambda: now[0]))
    aside = ChainsAside(cast("Any", None))
    aside._keep(b"key", BrokenChain("acme", "order-1", None, "unreadable"))
    message = [Event("acme", {}, b"", b"", b"key")]
    for _ in range(40):
        assert {0} == aside.unreadable(cast("Any", None), [message]).keys()
        now[0] += 1.0

    assert [1000.0, 1000.0 + 60.0 + 30.0] == looks
