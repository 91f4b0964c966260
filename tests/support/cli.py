"""The command line against a test's database."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner, Result

from ops.cli import main
from ops.settings import environment


class Cli:
    """Runs commands with the rights of a worker, or of the database's owner."""

    def __init__(self, database: Any, amqp_url: str = "", *, owner: bool = False) -> None:
        url = database.url if owner else database.worker_url
        self.environment = {"WAXSEAL_DATABASE_URL": url, "WAXSEAL_KEYS": database.key, "WAXSEAL_AMQP_URL": amqp_url}

    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], env=self.environment)

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        ended = self.run(*arguments, "--json")
        assert 0 == ended.exit_code, ended.output
        return [json.loads(line) for line in ended.stdout.splitlines()]

    @contextmanager
    def process(self, *arguments: object, **more: str) -> Iterator[subprocess.Popen[str]]:
        """The command in a process of its own, killed when the block ends."""
        command = [sys.executable, "-m", "ops.cli", *(str(each) for each in arguments)]
        env = environment() | self.environment | more
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)
