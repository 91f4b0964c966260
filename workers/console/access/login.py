"""Logging in and out."""

from starlette.routing import BaseRoute

from workers.console.call import Console


def routes(console: Console) -> list[BaseRoute]:
    """The routes of logging in and out."""
    del console
    return []
