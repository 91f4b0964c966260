"""What processes import when they start."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["ops.servers.fork_server_start", "ops.admin.read_session", "workers.console.ledger_job_child"]
)
def test_what_logs_does_not_import_rich_before_it_draws(module: str) -> None:
    shown = f"import {module}, sys; print('structlog' in sys.modules, 'rich' in sys.modules, 'pygments' in sys.modules)"
    drawing = "import rich.console; print(rich.console.Console.__name__)"

    done = subprocess.run([sys.executable, "-c", f"{shown}; {drawing}"], capture_output=True, text=True, check=True, timeout=60)

    assert ["True", "False", "False", "Console"] == done.stdout.split()
