"""What watches a system that a test runs: a private Prometheus, Postgres's exporter, and a supervisor with its metrics."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from ops.prometheus import RULES
from ops.servers.child import Child, stop
from ops.servers.ports import LOOPBACK
from ops.servers.prometheus import Target, Watch, prometheus_child, prometheus_url
from ops.system.supervisor import Supervisor
from ops.system.up import probes
from support.net.ports import free_port
from support.telemetry.grafana import Prometheus
from support.telemetry.watching import running
from support.waiting import wait_for

#: Debian's exporter, 0.11, has to be told of tables; from 0.13 on they are built in, under these names.
_TABLES = {
    "pg_stat_user_tables": {
        "query": "SELECT current_database() AS datname, schemaname, relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables",
        "metrics": [
            *({label: {"usage": "LABEL", "description": "-"}} for label in ("datname", "schemaname", "relname")),
            *({value: {"usage": "GAUGE", "description": "-"}} for value in ("n_live_tup", "n_dead_tup")),
        ],
    }
}


@contextmanager
def exporting(database_url: str, folder: Path) -> Iterator[int]:
    """Runs Postgres's exporter while the block runs; yields its port."""
    program, port = shutil.which("prometheus-postgres-exporter"), free_port()
    assert program is not None, "install it: python3 -m ops.bootstrap --tests"
    url = make_url(database_url).set(query={"sslmode": "disable"}).render_as_string(hide_password=False)
    command = [program, f"--web.listen-address={LOOPBACK}:{port}", "--log.level=error"]
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30)
    if "version 0.11." in told.stdout + told.stderr:  # newer ones have them
        (folder / "tables.yml").write_text(json.dumps(_TABLES))
        command.append("--extend.query-path=tables.yml")
    child = Child("exporter", "exporter", command, {"DATA_SOURCE_NAME": url}, folder / "log", folder, ready=lambda: True)
    with running(child):
        yield port


@contextmanager
def watching(processes: Mapping[str, int], others: Mapping[str, int], folder: Path) -> Iterator[Prometheus]:
    """Runs a Prometheus while the block runs: it scrapes `processes`, ports by role, and evaluates all rules every second.

    `others` are ports of other programs by the name of their job, which are scraped every few seconds.
    """
    port, home = free_port(), folder / "home"
    watch = Watch([Target(role, f"http://{LOOPBACK}:{port}") for role, port in processes.items()], every=1)
    child = prometheus_child(home, port, watch, None, folder / "log")
    configuration = json.loads((home / "prometheus.yml").read_text())
    for job, other in others.items():
        scraped = {"job_name": job, "scrape_interval": "3s", "static_configs": [{"targets": [f"{LOOPBACK}:{other}"]}]}
        configuration["scrape_configs"].append(scraped)
    (home / "prometheus.yml").write_text(json.dumps(configuration))
    for rule in RULES:
        (home / rule.name).write_text(rule.read_text().replace("interval: 1m", "interval: 1s"))
    with running(child):
        yield Prometheus(prometheus_url(port), since=time.time())


class _Over(Exception):
    pass


@contextmanager
def supervising(folder: Path, port: int) -> Iterator[Child]:
    """Runs a supervisor of one process, which sleeps, and serves the supervisor's metrics; yields the process."""
    child = Child("sleeper", "sequencer", ["sleep", "600"], {}, folder / "log", folder, ready=lambda: True)
    over = threading.Event()

    def interrupted() -> None:
        if over.is_set():
            raise _Over

    def supervise() -> None:
        child.start()  # it ends with the thread that starts it
        try:
            Supervisor([child], lambda: None).run(interrupted)
        except _Over:
            stop([child], 10)

    thread = threading.Thread(target=supervise)
    with probes(folder, LOOPBACK, port):
        thread.start()
        try:
            wait_for(lambda: child.running)
            yield child
        finally:
            over.set()
            thread.join()
