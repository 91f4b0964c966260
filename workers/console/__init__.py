"""The console and the API: one process, one port. Pages and operations show and do what `ops.admin` does, and nothing else."""

from ops import plain_structlog  # noqa: F401
