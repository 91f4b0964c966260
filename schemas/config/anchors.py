"""Where checkpoints are anchored: the value of WAXSEAL_LOG_ANCHORS, places separated by white space.

`/folder` or `s3://bucket/prefix` (write-once files), `rfc3161+https://host/path#ca=FILE` (a time-stamping authority and the
certificates that it is trusted by), `witness+https://host/prefix#vkey=NAME+ID+KEY` (a C2SP witness and its verifier key).
Options follow a #, joined by &: `every=30s` is the least time between two checkpoints of one log there.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal
from urllib.parse import urlsplit

from schemas.units import seconds

AnchorKind = Literal["folder", "s3", "rfc3161", "witness"]

#: Seconds between two checkpoints of one log, unless `every` says otherwise. Authorities and witnesses serve many.
EVERY: Final[dict[AnchorKind, float]] = {"folder": 60.0, "s3": 60.0, "rfc3161": 3600.0, "witness": 60.0}
_NEEDS: Final[dict[AnchorKind, str | None]] = {"folder": None, "s3": None, "rfc3161": "ca", "witness": "vkey"}
_OVER_HTTP: Final = ("rfc3161", "witness")


@dataclass(frozen=True, slots=True)
class AnchorPlace:
    """One place: a folder, an S3 prefix, or the URL of an authority or a witness, without its options."""

    kind: AnchorKind
    place: str
    every: float
    trusts: str = ""  # of an authority, the file of certificates; of a witness, its verifier key


def read_anchors(text: str) -> tuple[AnchorPlace, ...]:
    """The places in the setting. Raises `ValueError` that says what is wrong with which."""
    anchors = tuple(map(_anchor, text.split()))
    places = [each.place for each in anchors]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise ValueError(f"{twice} is there twice")
    return anchors


def _anchor(word: str) -> AnchorPlace:
    where, _, fragment = word.partition("#")
    kind, place = _kind(where)
    options = dict(option.partition("=")[::2] for option in fragment.split("&") if option)
    needed = _NEEDS[kind]
    if unknown := options.keys() - {"every", *([needed] if needed else [])}:
        raise ValueError(f"{place}: unknown option {', '.join(sorted(unknown))}")
    if needed and not options.get(needed):
        raise ValueError(f"{place}: add #{needed}=…, what to verify its answers with")
    try:
        every = seconds(options["every"]) if "every" in options else EVERY[kind]
    except ValueError as error:
        raise ValueError(f"{place}: every {error}") from None
    return AnchorPlace(kind, place, every, options.get(needed or "", ""))


def _kind(where: str) -> tuple[AnchorKind, str]:
    if where.startswith("s3://"):
        return "s3", where
    if PurePath(where).is_absolute():
        return "folder", where
    name, plus, url = where.partition("+")
    for kind in _OVER_HTTP:
        if plus and name == kind and urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname:
            return kind, url
    raise ValueError(f"{where!r:.200} is none of /folder, s3://…, rfc3161+https://…, witness+https://…")
