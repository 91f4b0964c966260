"""Imported first by the process that forks our commands: collecting garbage while it imports the rest is a third of its CPU."""

import gc

from ops import plain_structlog  # noqa: F401

gc.disable()  # until all is imported: nothing of what that makes can be freed
