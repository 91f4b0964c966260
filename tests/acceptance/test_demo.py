"""The demo, as a newcomer runs it."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from ops.settings import environment
from support.pages import README, blocks
from support.paths import ROOT
from support.stack import WAXSEAL, nothing_runs_on
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

A_MINUTE = 60.0  # seconds: what the demo takes at most on a machine that does nothing else


def start(folder: Path) -> "subprocess.Popen[str]":
    """Starts the demo in an environment whose variables it must ignore, and whose PATH has no `waxseal`."""
    misleading = {"WAXSEAL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "WAXSEAL_AMQP_URL": "amqp://127.0.0.1:1/"}
    return subprocess.Popen(
        [*WAXSEAL, "demo", "--data", str(folder)],
        cwd=ROOT,
        env={**environment(), **misleading, "PATH": path_without_waxseal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def path_without_waxseal() -> str:
    folders = environment()["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not Path(folder, "waxseal").exists())


def idled() -> float:
    """For how many seconds the machine's cores have been idle, on average."""
    times = psutil.cpu_times()
    return (times.idle + getattr(times, "iowait", 0.0)) / psutil.cpu_count()


def one_spaced(row: str) -> str:
    """A row of a table, without column widths and the number of a dead letter."""
    return re.sub(r"dead letter \d+", "dead letter N", " ".join(row.split()))


def test_the_demo_shows_what_became_of_everything_and_leaves_nothing_running_however_it_ends(data_folder) -> None:
    told_to_stop = start(data_folder)
    log = data_folder / "log" / "supervisor.log"
    wait_for(lambda: told_to_stop.poll() is not None or (log.exists() and "acme/orders" in log.read_text()), 100)
    told_to_stop.send_signal(signal.SIGTERM)  # the file was applied, and processes are being started
    said, _ = told_to_stop.communicate(timeout=60)
    assert (130, False) == (told_to_stop.returncode, "are ready" in said), said
    assert nothing_runs_on(data_folder)

    before = idled()
    demo = start(data_folder)  # on the data folder that the first one left, with other URLs and secrets
    output, _ = demo.communicate(timeout=150)
    waited = idled() - before  # for retries, and for servers that start; not for other work that had the machine

    assert 0 == demo.returncode, output
    assert waited < A_MINUTE
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
    path = next(line.strip() for line in output.splitlines() if "PATH=" in line)
    assert path in blocks("sh", README)[1].text
    assert f"waxseal timeline acme {order} --data {data_folder}" in output
    assert nothing_runs_on(data_folder)
