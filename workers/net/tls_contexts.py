"""The TLS settings of endpoints, made once and kept ready."""

import asyncio
import ssl
from collections import OrderedDict
from typing import Final

from ops.runtime.tls import client_context
from schemas.endpoint import Endpoint
from workers.net.timings import TimedTls

KEPT: Final = 256  # settings; what was not used for longest goes first


class TlsContexts:
    """Contexts for each `client_cert` and `ca` that endpoints have; `common` is for all that have neither."""

    def __init__(self) -> None:
        self.common = _timed(client_context())
        self._own: OrderedDict[tuple[str | None, str | None], ssl.SSLContext] = OrderedDict()

    async def of(self, endpoint: Endpoint) -> ssl.SSLContext:
        """The endpoint's context. Raises SSLError when what it has is of no use here, though `waxseal apply` took it."""
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
