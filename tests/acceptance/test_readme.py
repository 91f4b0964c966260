"""The README's own walk: its file, its commands, in a folder of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import ROOT, wait_for

from ops.settings import environment

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first fenced block of the README in `language`."""
    found = re.search(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(1)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = environment() | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment()['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_of_the_readme_does_what_it_says(data_folder: Path) -> None:
    (data_folder / "waxseal.yaml").write_text(block("yaml"), encoding="utf-8")
    said = {}
    try:
        for line in block("sh").strip().splitlines():
            command = line.partition("   #")[0].strip()
            if "http://127.0.0.1:8420" in command:
                stack = json.loads((data_folder / ".waxseal" / "stack.json").read_text())
                command = command.replace("http://127.0.0.1:8420", stack["ingress_url"])
            done = shell(command, data_folder)
            if command.startswith("sleep "):  # long enough for whoever reads along, not for a machine that runs other tests too
                wait_for(
                    lambda: "evt-1" in shell("waxseal timeline acme order-7 && waxseal deliveries acme", data_folder).stdout, 60
                )
                continue
            assert 0 == done.returncode, f"{command}: {done.stdout}{done.stderr}"
            said[command.split()[1]] = done.stdout
    finally:
        shell("waxseal down", data_folder)

    assert "evt-1" in said["timeline"]
    assert "billing" in said["deliveries"]
    assert "pending" in said["deliveries"]
    assert (data_folder / "acme.jsonl").exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"\bwaxseal ([a-z][a-z-]+)", TEXT))))
def test_every_command_that_the_readme_names_has_a_help(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ops.cli", command, "--help"], capture_output=True, text=True, timeout=30, check=False
    )

    assert 0 == shown.returncode, shown.stderr
    assert "Usage: " in shown.stdout


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", TEXT, re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
