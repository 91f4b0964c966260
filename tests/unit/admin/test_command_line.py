"""The command line: help with examples, exit codes, and errors of one line."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import psycopg
import pytest
import sqlalchemy.exc
from click.testing import CliRunner

from ops.cli import COMMANDS, main
from ops.cli.terminal.exit_codes import PlainGroup, explain
from ops.errors import OpsError


@click.group(cls=PlainGroup)
def tool() -> None:
    pass


def command(name: str, act: Callable[[], object]) -> None:
    tool.command(name)(act)


def fail(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


command("seven", lambda: 7)
command("nothing", lambda: None)
command("text", lambda: "text")
command("bug", fail(KeyError("x")))
command("advice", fail(OpsError("plug it in")))
command("interrupt", fail(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("seven", 7, ""),
        ("nothing", 0, ""),
        ("text", 0, ""),
        ("advice", 2, "Error: plug it in\n"),
        ("bug", 2, "Error: unexpected KeyError: 'x' (WAXSEAL_DEBUG=1 shows where)\n"),
        ("interrupt", 130, "Interrupted.\n"),
        ("none", 2, "Error: No such command 'none'. (see `tool --help`)\n"),
    ],
)
def test_a_command_ends_with_its_code_or_one_line_and_2(name: str, code: int, told: str) -> None:
    ended = CliRunner().invoke(tool, [name], prog_name="tool")

    assert (code, told) == (ended.exit_code, ended.stderr.lstrip("\n"))


def test_the_traceback_shows_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAXSEAL_DEBUG", "1")

    assert "Traceback (most recent call last)" in CliRunner().invoke(tool, ["bug"]).stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.yaml"), "x.yaml: No such file or directory"),
        (psycopg.OperationalError("refused\nmore"), "the database does not answer (refused): "),
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("refused")), "the database does not answer (("),
        (click.BadParameter("no such day"), "Invalid value: no such day"),
    ],
)
def test_expected_failures_say_what_to_do(error: Exception, line: str) -> None:
    explained = explain(error)

    assert explained.startswith(line)
    assert "\n" not in explained


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ops.cli", "settings"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(writer)

    assert (1, "") == (done.returncode, done.stderr)


def test_nothing_asked_for_is_the_help() -> None:
    ended = CliRunner().invoke(main, [])

    assert 0 == ended.exit_code
    assert "waxseal up --config waxseal.yaml" in ended.stdout


def within(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of a command, and of all commands in its group."""
    yield path
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from within(one, *path, name)


@pytest.mark.parametrize("words", [words for one in COMMANDS for words in within(one, str(one.name))], ids=" ".join)
def test_every_commands_help_says_what_it_does_with_an_example_of_it(words: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(main, [*words, "--help"])

    assert 0 == ended.exit_code
    assert re.search(r"Examples?:\s.*" + r"\s+".join(("waxseal", *words)), ended.stdout, re.DOTALL)


def test_settings_lists_every_variable() -> None:
    assert "WAXSEAL_DATABASE_URL" in CliRunner().invoke(main, ["settings"]).stdout


def test_data_is_deleted_only_with_yes(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["down", "--delete-data", "--data", str(tmp_path)])

    assert (2, True) == (ended.exit_code, tmp_path.exists())


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    ended = CliRunner().invoke(main, ["down", "--delete-data", "--yes", "--data", str(tmp_path)])

    assert 2 == ended.exit_code
    assert "is not a data folder of waxseal" in ended.stderr
    assert (tmp_path / "log").exists()


def test_help_loads_no_database_broker_or_server() -> None:
    heavy = "{'sqlalchemy', 'pika', 'pydantic', 'httptools', 'dramatiq', 'aiohttp', 'rich'}"
    program = f"import sys, ops.cli; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert "[]\n" == done.stdout
