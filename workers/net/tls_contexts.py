"""The TLS contexts of endpoints, made once and cached."""

import asyncio
import ssl
from collections import OrderedDict
from typing import Final

from ops.runtime.tls import client_context, system_context
from schemas.endpoint import Endpoint
from workers.net.timings import TimedTls

KEPT: Final = 256  # contexts; the least recently used one is dropped first


class TlsContexts:
    """A context for each pair of `client_cert` and `ca`; `common` is for endpoints that have neither."""

    def __init__(self) -> None:
        self.common = system_context(TimedTls)
        self._own: OrderedDict[tuple[str | None, str | None], ssl.SSLContext] = OrderedDict()

    async def of(self, endpoint: Endpoint) -> ssl.SSLContext:
        """The endpoint's context. Raises SSLError if its files are unusable here, though `waxseal apply` accepted them."""
        key = endpoint.client_cert, endpoint.ca
        if key == (None, None):
            return self.common
        if key not in self._own:
            try:
                self._own[key] = _timed(await asyncio.to_thread(client_context, *key))
            except ValueError as error:
                raise ssl.SSLError(str(error)) from None
            if len(self._own) > KEPT:
                self._own.popitem(last=False)
        self._own.move_to_end(key)
        return self._own[key]


def _timed(context: ssl.SSLContext) -> ssl.SSLContext:
    context.sslobject_class = TimedTls
    return context
