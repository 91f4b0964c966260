"""What a tenant's log is called, and where its files lie. A restored backup goes on in a new incarnation of the log."""

import re
from typing import Final

SIZE_DIGITS: Final = 20  # so that names sort by size
_ORIGIN: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._~-]+)*", re.ASCII)


def read_origin(text: str) -> str:
    """The base of the logs' origins; may be empty. Raises ValueError for what is no URL without scheme (LEDGER §3)."""
    if text and not _ORIGIN.fullmatch(text):
        raise ValueError("must be a URL without scheme, spaces and +, as ledger.example")
    return text


def log_origin(base: str, tenant: str, incarnation: int) -> str:
    """The origin in its checkpoints, and the name of its keys (LEDGER §3)."""
    return f"{base}/{log_folder(tenant, incarnation)}"


def log_folder(tenant: str, incarnation: int) -> str:
    """The folder of its files, which is the origin without its base: a client finds the files by the origin."""
    return tenant if incarnation == 1 else f"{tenant}/r{incarnation}"


def anchor_folder(tenant: str, incarnation: int) -> str:
    """The folder of its anchored checkpoints, at an anchor that is a place for files."""
    return f"{tenant}/r{incarnation}"


def anchor_name(size: int) -> str:
    """The name there of the checkpoint of this size."""
    return f"{size:0{SIZE_DIGITS}}"


def stamped_name(size: int) -> str:
    """The name, in the log's folder, of the checkpoint of this size as authorities stamped it."""
    return f"timestamps/{size:0{SIZE_DIGITS}}"


def stamp_name(size: int, url: str) -> str:
    """The name of the time stamp that the authority at `url` gave for it."""
    authority = re.sub(r"[^a-z0-9]+", "-", url.partition("://")[2].lower()).strip("-")
    return f"{stamped_name(size)}.{authority}.tsr"
