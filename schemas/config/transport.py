"""What a transport is to all but its sender: where it stands in the configuration file, and what of it is stored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

#: Steps from the value at a transport's key to where a host is named; and the host.
Dialled = tuple[tuple[str, ...], str]


def _nobody(_form: Any) -> Iterable[Dialled]:
    return ()


@dataclass(frozen=True, slots=True)
class Transport:
    """One transport. To add one: a file with such a value and a line in `schemas.config.transports`, and its sender.

    The sender is a file in `workers` and a line in `workers.transports.registry`: the layers keep the two apart.

    `name` stands in the database, in the metrics, and in front of what a difference tells of the target. `key` is the key of
    an endpoint in the configuration file, and `form` the type of what stands there: a URL, or a `Spec` with a method `target`
    that gives a `target`. That is a frozen dataclass of what JSON can hold, and tuples; what is not in its repr is stored
    sealed, and must not be named as another transport's secret or as one of `SEALED_TERMS`.

    `useless` are keys of an endpoint that mean nothing with it. `signed`: its deliveries are signed with a secret. `dials`
    gives the hosts that are connected to; `proxied`: by the deployment's proxy, if there is one.
    """

    name: str
    key: str
    form: Any
    target: type | None = None
    useless: tuple[str, ...] = ()
    signed: bool = False
    dials: Callable[[Any], Iterable[Dialled]] = _nobody
    proxied: bool = False


#: Terms of every endpoint that are stored sealed.
SEALED_TERMS: Final = ("headers", "client_cert", "ca")
