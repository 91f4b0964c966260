"""Connections to Postgres that give up on a server that has stopped answering.

The kernel of a frozen server (stopped, paused, stuck on its disk) goes on acknowledging what is sent to it. Then neither
keepalives nor `tcp_user_timeout` nor the server's own timeouts fire: only a deadline of the client ends the wait.

A server that works may take as long for a statement as its timeout allows. So silence alone is no reason to give up: the
client checks, over another connection, whether the server still answers at all.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg.waiting import Ready

SILENCE: Final = 5.0  # seconds without a byte of the answer, after which the server is checked
LONGEST_GAP: Final = 30.0  # seconds between two such checks; the first gap is `SILENCE`, then they double
ANSWER: Final = 3.0  # seconds that the server has for the login of a check, and again for its statement
GRACE: Final = 10.0  # seconds beyond the server's own timeout, after which a statement is given up even if checks succeed

_Result = TypeVar("_Result")
_Wait = Generator[Any, Any, _Result]  # psycopg's generator of one exchange: yields what to wait for, is sent what is ready


class Unanswered(psycopg.OperationalError):
    """Postgres does not answer. The connection is closed; whether the statement took effect is unknown."""


class Connection(psycopg.Connection[Any]):
    """Sets a deadline for every wait for the server: statements, COPY, commit and rollback. See `_watched`."""

    still_answers: Callable[[], bool] | None = None
    longest: float = float("inf")  # seconds for one exchange

    def wait(self, gen: _Wait[_Result], *args: Any, **options: Any) -> _Result:
        """Run one exchange with the server. Raises `Unanswered`."""
        if options.get("timeout") is None:  # else the caller has a deadline of its own: it listens for notifications
            gen = self._watched(gen)
        return super().wait(gen, *args, **options)

    def _watched(self, gen: _Wait[_Result]) -> _Wait[_Result]:
        began = heard = time.monotonic()
        gap = silence = min(SILENCE, self.longest)
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg sends an empty `ready` ten times a second
                if ready:
                    if ready & Ready.R:  # Ready.W comes from our kernel's buffer, not from the server
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
            self.pgconn.finish()  # a rollback or the end of a COPY that follows must not wait again
            raise Unanswered(f"Postgres has not answered a statement that began {waited:.0f} s ago")


def connect(
    kind: type[Connection], arguments: Sequence[Any], options: Mapping[str, Any], statement_timeout: float
) -> Connection:
    """Log in, within psycopg's `connect_timeout`. `statement_timeout` is the server's, in seconds."""
    made = kind.connect(*arguments, **options)
    # Of several hosts it is this one that has to answer, whatever the others say.
    here = {"host": made.info.host, "port": made.info.port, "hostaddr": made.info.hostaddr, "target_session_attrs": "any"}
    made.still_answers = partial(answers, arguments, {**options, **here})
    made.longest = statement_timeout + GRACE
    return made


def answers(arguments: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether the server answers a new connection at all, even with a refusal; known within about six seconds."""
    try:
        with Connection.connect(*arguments, **{**options, "connect_timeout": int(ANSWER)}, autocommit=True) as conn:
            conn.longest = ANSWER  # a pooler may complete the login while the server behind it is frozen
            conn.execute("")
    except (psycopg.errors.ConnectionTimeout, Unanswered):
        return False
    except psycopg.Error:
        return True  # a refusal is an answer; the waiting connection finds out itself whether it is lost
    return True
