"""Events for operators."""

from dataclasses import dataclass
from datetime import datetime

from ops.admin.views import View


@dataclass(frozen=True)
class Found:
    """A page: its rows, the cursor of the next page, and how far back a bounded search has looked."""

    rows: list[View]
    next: str | None
    searched_to: datetime | None = None
