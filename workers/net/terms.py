"""The network settings that apply to everything a deployment sends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from ops.settings import Settings, load_settings
from pipeline.delivery.addresses import Network, networks

_AGENT: Final = f"waxseal/{version('waxseal')}"  # asked once: while pip replaces the package, it is not to be found


@dataclass(frozen=True, slots=True)
class Terms:
    """The network settings that apply to everything a deployment sends."""

    user_agent: str
    allowed: Sequence[Network] = ()  # private networks that may be reached all the same
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    amqp_url: str = field(default="", repr=False)


def terms_of(settings: Settings) -> Terms:
    """The terms in the settings of a process."""
    return Terms(_AGENT, networks(settings.allow_networks), settings.proxy or None, settings.amqp_url)


def deployment() -> Terms:
    """The terms from the environment, for callers without settings."""
    return terms_of(load_settings())
