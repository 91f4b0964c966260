"""Connections to Postgres that give up on a server that has stopped answering.

The kernel of a server that stands still (stopped, paused, stuck on its disk) goes on acknowledging what is sent to it. Then no
keepalive fires, no `tcp_user_timeout`, and no timeout of the server's own: only a deadline of the client ends the wait.

A statement may take as long as it is allowed to while the server works. So silence alone is not enough to give up: the server
is asked, over another connection, whether it still answers anybody.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg.waiting import Ready

SILENCE: Final = 5.0  # seconds for which nothing of an answer arrives until the server is asked
LONGEST_GAP: Final = 30.0  # seconds between two such questions; the first gap is `SILENCE`, then they double
ANSWER: Final = 3.0  # seconds to answer the question, and before that, to let us log in for it
GRACE: Final = 10.0  # seconds beyond the server's own timeout after which a statement is given up, whoever else is answered

_Result = TypeVar("_Result")
_Wait = Generator[Any, Any, _Result]  # psycopg's steps of one exchange: yields what to wait for, is sent what is ready


class Unanswered(psycopg.OperationalError):
    """Postgres does not answer; the connection is closed, and whether the statement took effect is not known."""


class Connection(psycopg.Connection[Any]):
    """Ends every wait for the server; COPY, commit and rollback as well as statements. See `watched`."""

    still_answers: Callable[[], bool] | None = None
    longest: float = float("inf")  # seconds for one exchange

    def wait(self, gen: _Wait[_Result], *args: Any, **options: Any) -> _Result:
        """Take the steps of one exchange with the server. Raises `Unanswered`."""
        if options.get("timeout") is None:  # else the caller has a deadline: whoever listens for notifications
            gen = self._watched(gen)
        return super().wait(gen, *args, **options)

    def _watched(self, gen: _Wait[_Result]) -> _Wait[_Result]:
        began = heard = time.monotonic()
        gap = silence = min(SILENCE, self.longest)
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg comes by with nothing ten times a second
                if ready:
                    if ready & Ready.R:  # that something can be sent is the kernel's word, not the server's
                        heard, gap, silence = time.monotonic(), SILENCE, SILENCE
                elif (now := time.monotonic()) - heard >= silence:
                    self._give_up_unless(self._answers(), now - began)
                    gap = min(2 * gap, LONGEST_GAP)
                    silence = time.monotonic() - heard + gap
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _Result = end.value
            return result

    def _answers(self) -> bool:
        return self.still_answers is None or self.still_answers()

    def _give_up_unless(self, alive: bool, waited: float) -> None:
        if not alive or waited >= self.longest:
            self.pgconn.finish()  # what comes after, a rollback or the end of a COPY, must not wait once more
            raise Unanswered(f"Postgres has not answered a statement that began {waited:.0f} s ago")


def connect(
    kind: type[Connection], arguments: Sequence[Any], options: Mapping[str, Any], statement_timeout: float
) -> Connection:
    """Log in; psycopg gives up after `connect_timeout`. `statement_timeout` in seconds, as the server has it."""
    made = kind.connect(*arguments, **options)
    made.still_answers = partial(answers, arguments, options)
    made.longest = statement_timeout + GRACE
    return made


def answers(arguments: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether the server answers anything at all to a new connection, be it a refusal; within about six seconds."""
    try:
        with Connection.connect(*arguments, **{**options, "connect_timeout": int(ANSWER)}, autocommit=True) as conn:
            conn.longest = ANSWER  # behind a pooler that lets us log in, the server may stand still all the same
            conn.execute("")
    except (psycopg.errors.ConnectionTimeout, Unanswered):
        return False
    except psycopg.Error:
        return True  # it refuses; the connection that waits hears for itself whether it is gone
    return True
