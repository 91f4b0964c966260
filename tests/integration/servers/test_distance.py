"""How far Postgres is, as the process knows it from its exchanges with it."""

import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from ops.runtime.db import alone, make_engine, transaction
from ops.runtime.driver import db_deadline
from ops.runtime.driver.db_distance import WINDOW, Distance
from ops.servers.ports import choose_ports, listens
from ops.servers.process_tree import end_all, wait_until

DELAY = 0.03  # seconds each way


@pytest.fixture
def far_url(database) -> Iterator[str]:
    """The database at the end of a long line."""
    near, here = urlsplit(database.worker_url).port, choose_ports(["line"], {})["line"]
    line = subprocess.Popen([sys.executable, "-m", "ops.bench.distance.forwarder", str(DELAY), f"{here}:{near}"])
    try:
        assert wait_until(lambda: listens(here), 60)
        yield database.worker_url.replace(f":{near}", f":{here}")
    finally:
        end_all([line], 10)


def test_it_is_the_time_that_the_line_takes_there_and_back_whatever_was_asked(far_url, monkeypatch) -> None:
    monkeypatch.setattr(db_deadline, "DISTANCE", distance := Distance())
    engine = make_engine(far_url, pool_size=1)
    with transaction(engine) as conn:
        conn.exec_driver_sql("CREATE TEMPORARY TABLE numbers (number int)")
        driver = conn.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
            copy.write("1\n" * 10_000)
        with driver.pipeline():
            for _ in range(3):
                driver.execute("SELECT number FROM numbers")
    with alone(engine) as conn:
        conn.exec_driver_sql("SELECT 1")
    engine.dispose()

    assert distance.seconds() >= 2 * DELAY


def test_the_shortest_exchange_counts_until_two_windows_have_passed() -> None:
    distance = Distance()
    seen = [distance.seconds()]
    for began, took in ((0.0, 0.5), (1.0, 0.1), (2.0, 0.7), (WINDOW + 1, 0.3), (2 * WINDOW + 2, 0.4), (3 * WINDOW + 3, 0.6)):
        distance.note(began, began + took)
        seen.append(distance.seconds())

    assert [0.0, 0.5, 0.1, 0.1, 0.1, 0.3, 0.4] == pytest.approx(seen)
