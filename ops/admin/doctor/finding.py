"""What one check found."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it unless it is ok. A note is worth knowing, but nothing is wrong."""

    check: str
    state: State
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """All is as it should be."""
    return Finding(check, "ok", found)


def note(check: str, found: str, mend: str) -> Finding:
    """Nothing is wrong, but somebody should know."""
    return Finding(check, "note", found, mend)


def wrong(check: str, found: str, mend: str) -> Finding:
    """Something is wrong, and `mend` says what to do."""
    return Finding(check, "wrong", found, mend)


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether any of them is wrong."""
    return any(each.state == "wrong" for each in findings)


def finding_view(found: Finding) -> dict[str, Any]:
    """A finding as a JSON object; `mend` is null if nothing is to be mended."""
    return {**asdict(found), "mend": found.mend or None}
