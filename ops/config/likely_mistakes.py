"""Likely mistakes in a configuration file: it is applied, and each is a warning with its line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, Final

from ops.config.yaml import Location
from pipeline.delivery.addresses import Network, refused_host
from pipeline.delivery.filters import names_in
from pipeline.sources import KINDS
from schemas.config.endpoint import EndpointSpec
from schemas.config.file import ConfigFile
from schemas.event import REQUIRED
from schemas.mailbox import BACKFILL

#: Attributes that an event may have whatever its source is configured to set: CloudEvents' own, and those that receivers set.
_KNOWN: Final = (
    *(*REQUIRED, "dataschema", "origin", "traceparent", "tracestate", "contentencoding", BACKFILL),
    *(name for kind in KINDS.values() for name in kind.extensions),
)
_MEETS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


@dataclass(frozen=True, slots=True)
class LikelyMistake:
    """A place in the file, and what is likely wrong there."""

    at: Location
    what: str


def likely_mistakes(config: ConfigFile, allowed: Sequence[Network], *, by_proxy: bool = False) -> Iterator[LikelyMistake]:
    """Filters on attributes or names that no source has, and forbidden addresses. `by_proxy`: a proxy decides about those."""
    for index, endpoint in enumerate(config.endpoints):
        yield from _of_filter(index, endpoint, _set_by(config, endpoint.tenant))
        yield from _of_source(index, endpoint, _sources_of(config, endpoint.tenant))
        transport = endpoint.reached_by
        for at, host in () if transport.proxied and by_proxy else transport.dials(endpoint.place):
            yield from _of_host(("endpoints", index, transport.key, *at), host, allowed)
    for index, mailbox in enumerate(config.mailboxes):
        yield from _of_host(("mailboxes", index, "host"), mailbox.host or "", allowed)


def _set_by(config: ConfigFile, tenant: str) -> list[str]:
    extensions = (name for source in config.sources if source.tenant == tenant for name in source.extensions)
    return [*_KNOWN, *extensions]


def _of_filter(index: int, endpoint: EndpointSpec, known: Sequence[str]) -> Iterator[LikelyMistake]:
    for at, name in names_in(endpoint.filter, ("endpoints", index, "filter")):
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            what = f"no source of {endpoint.tenant} sets the attribute {name!r:.80}: only events that bring it match{meant}"
            yield LikelyMistake(at, what)


def _sources_of(config: ConfigFile, tenant: str) -> list[str]:
    sources = [each.name for each in config.sources if each.tenant == tenant]
    return sources + [each.name for each in config.mailboxes if each.tenant == tenant]


def _of_source(index: int, endpoint: EndpointSpec, sources: Sequence[str]) -> Iterator[LikelyMistake]:
    """Conditions on `source` that no source of the tenant meets, as on a URL that senders of CloudEvents give."""
    for at, name in names_in(endpoint.filter):
        meets = _MEETS[str(at[-2])]
        value: Any = reduce(lambda part, step: part[step], at, endpoint.filter)
        if name == "source" and sources and not any(meets(each, value) for each in sources):
            told = f"no source of {endpoint.tenant} in this file is called {value!r:.80}"
            what = f"{told}: what senders call themselves is the attribute origin"
            yield LikelyMistake(("endpoints", index, "filter", *at), what)


def _of_host(at: Location, host: str, allowed: Sequence[Network]) -> Iterator[LikelyMistake]:
    why = refused_host(host, allowed)
    if why is not None:
        yield LikelyMistake(at, f"nothing is sent to {host} ({why}) unless WAXSEAL_ALLOW_NETWORKS has its network")
