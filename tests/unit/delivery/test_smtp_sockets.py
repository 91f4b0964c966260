import asyncio
import socket
from time import monotonic
from typing import Any, NoReturn

import pytest

from schemas.config.smtp_target import SmtpTarget
from schemas.endpoint import Endpoint
from workers.net.lease_deadline import unleased
from workers.net.terms import Terms
from workers.net.timings import ATTEMPT_TIMES, AttemptTimes
from workers.transports.smtp import SmtpSender


class Reset(socket.socket):
    def getsockname(self) -> NoReturn:
        raise OSError("transport endpoint is not connected")


def test_a_socket_that_was_reset_before_it_was_used_is_closed() -> None:
    target = SmtpTarget(to=("a@b.example",), sender="c@d.example", host="mail.example", security="none")
    made = Reset()

    async def main() -> None:
        async def dial(*_: object) -> Reset:
            return made

        sender = SmtpSender(Terms("waxseal/test", ()))
        dialler: Any = sender._dialler
        dialler.dial = dial
        ATTEMPT_TIMES.set(AttemptTimes(monotonic()))
        await sender._hand_over(Endpoint(1, "acme", "mail", "", target=target), target, b"", monotonic() + 5, unleased)

    with pytest.raises(OSError, match="not connected"):
        asyncio.run(main())
    assert made.fileno() == -1
