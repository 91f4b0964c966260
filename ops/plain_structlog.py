"""Imports structlog without rich, which it would use for tracebacks that we do not show: a tenth of what a process imports.

Commands import rich when they draw. Who imports this first starts sooner; whoever does not, as before.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment] # importing it fails
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
