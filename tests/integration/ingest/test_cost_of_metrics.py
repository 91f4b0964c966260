"""What counting costs: at most a fiftieth of the CPU that an ingest worker takes for its messages, measured in the same run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.runtime.blobs import Blobs
from ops.telemetry import ingest_metrics
from schemas.message import Message
from workers.ingest import batch_report
from workers.ingest.writer import Writer

AT_MOST = 0.02
BATCHES, SIZE = 12, 500  # the rate is decided when there is much to do, and batches are large


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The CPU time of this thread that each count took."""
    found: list[float] = []

    def timed(*counts: Any, **more: Any) -> None:
        began = time.thread_time()
        observe(*counts, **more)
        found.append(time.thread_time() - began)

    observe: Callable[..., None] = ingest_metrics.observe_batch
    monkeypatch.setattr(batch_report.ingest_metrics, "observe_batch", timed)
    return found


def test_counting_takes_at_most_a_fiftieth_of_the_time_for_a_message(
    database: Any, engine: Engine, tmp_path: Path, seconds: list[float]
) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    writer = Writer(engine, database.vault, Blobs(str(tmp_path)), lambda: False)
    writer.load()
    began = time.thread_time()
    for batch in range(BATCHES):
        messages = [
            Message("acme.orders", b"{}", message_id=f"{batch}-{each}", headers={"subject": str(each)}) for each in range(SIZE)
        ]
        writer.write([writer.judge(each) for each in messages])
    whole = time.thread_time() - began
    writer.close()

    assert BATCHES == len(seconds)
    assert sum(seconds) <= AT_MOST * whole
