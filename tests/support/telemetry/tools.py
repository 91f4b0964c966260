"""The checkers that come with Prometheus and Alertmanager."""

import os
import subprocess

import pytest


def checked(*command: str) -> str:
    """Runs promtool or amtool, which must find no fault. If it is not installed, the test fails and is never skipped."""
    try:
        # With the runtime's default of 100, a sixth of promtool's CPU goes into collecting its garbage.
        env = os.environ | {"GOGC": "400"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is not on this machine (`make test` installs it, where apt can)")
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout
