"""The demo, as a newcomer runs it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.settings import environment
from support.pages import README, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]


def start(folder: Path) -> subprocess.Popen[str]:
    """Starts the demo in an environment whose variables it must ignore."""
    misleading = {"WAXSEAL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "WAXSEAL_AMQP_URL": "amqp://127.0.0.1:1/"}
    command = [sys.executable, "-m", "ops.cli", "demo", "--data", str(folder)]
    return subprocess.Popen(
        command, env={**environment(), **misleading}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left_running(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line:
            found.append(line)
    return found


def one_spaced(row: str) -> str:
    """A row of a table, without column widths and the number of a dead letter."""
    return re.sub(r"dead letter \d+", "dead letter N", " ".join(row.split()))


def test_the_demo_shows_what_became_of_everything_and_leaves_nothing_running_however_it_ends(data_folder) -> None:
    told_to_stop = start(data_folder)
    assert told_to_stop.stdout is not None
    for line in told_to_stop.stdout:
        if "are ready" in line:
            break
    assert left_running(data_folder)
    told_to_stop.send_signal(signal.SIGTERM)
    assert 0 != told_to_stop.wait(60)
    told_to_stop.stdout.close()
    assert [] == left_running(data_folder)

    began = time.monotonic()
    again = start(data_folder)  # on the data folder that the first one left
    output, _ = again.communicate(timeout=100)
    took = time.monotonic() - began

    assert 0 == again.returncode, output
    assert took < 60
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    order = next(row[2] for row in rows if row[0] == "webhook, signed").removesuffix(" #0")
    expected = [
        ["webhook, signed", "202 accepted", f"{order} #0", "delivered, 1 try", "delivered, 3 tries", "dead, 3 tries"],
        ["the same once more", "202 accepted", f"still once: {order} #0", "-", "-", "-"],
        ["webhook, forged", "401 refused", "nothing", "-", "-", "-"],
        ["plain message over AMQP", "confirmed by RabbitMQ", f"{order} #3", "delivered, 1 try", "-", "-"],
    ]
    for row in expected:
        assert row in rows
    of_readme = blocks("text", README)[0].text.replace("order-6b01d8ad", order)
    assert [] == [
        line for line in of_readme.splitlines() if one_spaced(line) not in {one_spaced(row) for row in output.splitlines()}
    ]
    assert "missing_id" in output
    assert "; 0 were wrong." in output
    assert "The ledger is intact: " in output
    assert f"waxseal timeline acme {order} --data {data_folder}" in output
    assert [] == left_running(data_folder)
