"""Metrics and probes, and what reads their values. Nothing here decides anything."""

from ops import plain_structlog  # noqa: F401
