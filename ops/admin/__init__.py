"""What operators read and do; called by the CLI, and by any other front end. Nothing here prints."""

from ops import plain_structlog  # noqa: F401
