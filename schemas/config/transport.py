"""The definition of a transport, without its sender: its key in the configuration file, and what of it is stored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

#: The path from the value at a transport's key to the place that names a host; and the host.
Dialled = tuple[tuple[str, ...], str]


def _nobody(_form: Any) -> Iterable[Dialled]:
    return ()


@dataclass(frozen=True, slots=True)
class Transport:
    """One transport. To add one: a file with such a value and a line in `schemas.config.transports`, and its sender.

    The sender is a file in `workers` and a line in `workers.transports.registry`, because schemas do no I/O.

    `name` is used in the database, in metrics, and as the prefix of the target's fields in a difference. `key` is the key of
    an endpoint in the configuration file, and `form` the type of its value: a URL, or a `Spec` with a method `target` that
    returns a `target`. That is a frozen dataclass of JSON values and tuples; fields that are not in its repr are stored
    encrypted, and must not have the name of another transport's secret or of one of `SEALED_TERMS`.

    `useless` are keys of an endpoint that this transport does not take. `signed`: its deliveries are signed with a secret.
    `dials` returns the hosts that it connects to; `proxied`: through the deployment's proxy, if there is one.
    """

    name: str
    key: str
    form: Any
    target: type | None = None
    useless: tuple[str, ...] = ()
    signed: bool = False
    dials: Callable[[Any], Iterable[Dialled]] = _nobody
    proxied: bool = False


#: Terms of every endpoint that are stored encrypted.
SEALED_TERMS: Final = ("headers", "client_cert", "ca")
