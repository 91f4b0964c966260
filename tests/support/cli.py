"""The command line against a test's database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from click.testing import CliRunner, Result

from ops.cli import main
from ops.settings import environment
from support.forked import ForkedCommand


def variables(settings: dict[str, object]) -> dict[str, str]:
    """The settings as environment variables."""
    return {f"WAXSEAL_{name.upper()}": str(value) for name, value in settings.items()}


class Cli:
    """Runs commands with the rights of a worker. `settings` are WAXSEAL_…, by name."""

    def __init__(self, database: Any, amqp_url: str = "", **settings: object) -> None:
        ours = {"database_url": database.worker_url, "keys": database.key, "amqp_url": amqp_url}
        self.environment = variables(settings | ours)
        self._owner_url = database.url

    @property
    def owner(self) -> "Cli":
        """The same with the rights of the database's owner."""
        return self.but(database_url=self._owner_url)

    def but(self, **settings: object) -> "Cli":
        """The same with other settings."""
        other = copy(self)
        other.environment = self.environment | variables(settings)
        return other

    def run(self, *arguments: object, input: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], env=self.environment, input=input)

    def output(self, *arguments: object, code: int = 0) -> str:
        """All that a command says that ends with `code`."""
        ended = self.run(*arguments)
        assert code == ended.exit_code, ended.output
        return ended.output

    def json(self, *arguments: object) -> list[dict[str, Any]]:
        ended = self.run(*arguments, "--json")
        assert 0 == ended.exit_code, ended.output
        return [json.loads(line) for line in ended.stdout.splitlines()]

    @contextmanager
    def process(self, *arguments: object) -> Iterator[ForkedCommand]:
        """The command in a process of its own, killed when the block ends."""
        process = ForkedCommand(*(str(each) for each in arguments), env=environment() | self.environment)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)
