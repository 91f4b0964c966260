"""Connections to Postgres that give up on a server that has stopped answering.

The kernel of a frozen server (stopped, paused, stuck on its disk) goes on acknowledging what is sent to it. Then neither
keepalives nor `tcp_user_timeout` nor the server's own timeouts fire: only a deadline of the client ends the wait.

A server that works may take as long for a statement as its timeout allows. So silence alone is no reason to give up: the
client checks, over another connection, whether the server still answers at all.

Nor is a connection used to a primary that was replaced (`db_timelines`), to a server that takes no writes, or after a commit of
which Postgres says that it is on the primary alone.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from operator import ne
from typing import Any, Final, TypeVar

import psycopg
from psycopg.waiting import Ready

from ops.runtime.driver import db_timelines
from ops.runtime.driver.db_distance import DISTANCE
from ops.runtime.driver.db_timelines import Host, OldPrimary, Timeline

SILENCE: Final = 5.0  # seconds without a byte of the answer, after which the server is checked
LONGEST_GAP: Final = 30.0  # seconds between two such checks; the first gap is `SILENCE`, then they double
ANSWER: Final = 3.0  # seconds that the server has for the login of a check, and again for its statement
GRACE: Final = 10.0  # seconds beyond the server's own timeout, after which a statement is given up even if checks succeed

_WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"  # Postgres' function; the texts of its warnings depend on the server's language
_SLOW: Final = 2.0  # seconds for a login, after which the hosts that were tried in vain before are avoided as well
_AVOIDED_FOR: Final = 60.0  # seconds after which a host that did not answer, or was replaced, is tried in its turn again

_avoided: dict[Host, float] = {}  # until when (monotonic) the others are tried first

_Result = TypeVar("_Result")
_Wait = Generator[Any, Any, _Result]  # psycopg's generator of one exchange: yields what to wait for, is sent what is ready


class Unanswered(psycopg.OperationalError):
    """Postgres does not answer. The connection is closed; whether the statement took effect is unknown."""


class NotReplicated(psycopg.OperationalError):
    """The commit no longer waited for the standby. It is on the primary, and is lost if that one is lost now."""


class Connection(psycopg.Connection[Any]):
    """Sets a deadline for every wait for the server: statements, COPY, commit and rollback. See `_watched`."""

    still_answers: Callable[[], bool] | None = None
    longest: float = float("inf")  # seconds for one exchange
    timeline: Timeline | None = None  # of one of several hosts
    look_around: Callable[[], None] | None = None  # learns from the other hosts whether one of them was promoted
    _alone = False  # a commit was not replicated

    @property
    def host(self) -> Host:
        """The one of several hosts that it is connected to."""
        return self.info.host, str(self.info.port)

    def wait(self, gen: _Wait[_Result], *args: Any, **options: Any) -> _Result:
        """Run one exchange with the server. Raises `Unanswered`, `OldPrimary` or `NotReplicated`, and has closed it then."""
        if self.timeline is not None and db_timelines.is_old(self.timeline):
            _avoid([self.host])  # it may be cut off, and then each login would wait for it
            self.pgconn.finish()
            raise OldPrimary("Postgres was replaced by a standby, which is used from now on")
        if options.get("timeout") is None:  # else the caller has a deadline of its own: it listens for notifications
            gen = self._watched(gen)
        try:
            result = super().wait(gen, *args, **options)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.pgconn.finish()  # a standby, or a primary that was made one: the next connection may find the primary
            raise
        if self._alone:
            self.pgconn.finish()
            raise NotReplicated("Postgres committed on the primary only: it was told not to wait for the standby")
        return result

    def heed(self, notice: psycopg.errors.Diagnostic) -> None:
        """Note that a commit ended its wait for the standby: Postgres reports it as done, with this warning."""
        self._alone = self._alone or notice.source_function == _WAIT_FOR_STANDBY

    def _watched(self, gen: _Wait[_Result]) -> _Wait[_Result]:
        began = heard = time.monotonic()
        gap = silence = min(SILENCE, self.longest)
        answered = self._pipeline is not None  # there, a wait may be for the rest of an answer
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # psycopg sends an empty `ready` ten times a second
                if ready:
                    if ready & Ready.R:  # Ready.W comes from our kernel's buffer, not from the server
                        heard, gap, silence = time.monotonic(), SILENCE, SILENCE
                        if not answered:
                            answered = True
                            DISTANCE.note(began, heard)
                elif (now := time.monotonic()) - heard >= silence or self._given_up_since(heard):
                    alive = not self._given_up_since(heard) and self._answers()
                    self._give_up_unless(alive, now - began)
                    gap = min(2 * gap, LONGEST_GAP)
                    silence = time.monotonic() - heard + gap
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _Result = end.value
            return result

    def _given_up_since(self, heard: float) -> bool:
        """Whether this process has found meanwhile that this one of several hosts does not answer, or was replaced."""
        if self.timeline is None:
            return False
        return db_timelines.is_old(self.timeline) or _avoided.get(self.host, 0.0) - _AVOIDED_FOR > heard

    def _answers(self) -> bool:
        return self.still_answers is None or self.still_answers()

    def _give_up_unless(self, alive: bool, waited: float) -> None:
        if not alive or waited >= self.longest:
            if not alive:
                _avoid([self.host])
            self.pgconn.finish()  # a rollback or the end of a COPY that follows must not wait again
            raise Unanswered(f"Postgres has not answered a statement that began {waited:.0f} s ago")


def connect(
    kind: type[Connection], arguments: Sequence[Any], options: Mapping[str, Any], statement_timeout: float
) -> Connection:
    """Log in, within psycopg's `connect_timeout` for each host. `statement_timeout` is the server's, in seconds.

    Of several hosts the newest primary is taken (`db_timelines`); those that lately did not answer, or were replaced, are tried
    last.
    """
    hosts = db_timelines.hosts(options)
    made = kind.connect(*arguments, **options) if len(hosts) == 1 else _to_newest(kind, hosts, arguments, options)
    # Of several hosts it is this one that has to answer, whatever the others say.
    here = {"host": made.info.host, "port": made.info.port, "hostaddr": made.info.hostaddr, "target_session_attrs": "any"}
    made.still_answers = partial(answers, arguments, {**options, **here})
    made.longest = statement_timeout + GRACE
    made.add_notice_handler(made.heed)
    return made


def _to_newest(
    kind: type[Connection], hosts: Sequence[Host], arguments: Sequence[Any], options: Mapping[str, Any]
) -> Connection:
    now = time.monotonic()
    left = sorted(hosts, key=lambda host: max(now, _avoided.get(host, now)))
    while left:
        began = time.monotonic()
        made = kind.connect(*arguments, **{**options, **db_timelines.to_hosts(left)})
        if time.monotonic() - began > _SLOW:
            _avoid(takewhile(partial(ne, made.host), left))
        made.longest = ANSWER  # for the question
        made.timeline = db_timelines.timeline(made)
        others = [host for host in hosts if host != made.host]
        made.look_around = partial(db_timelines.ask, others, arguments, options)
        if made.timeline is None:
            return made
        if not db_timelines.is_known(made.timeline):
            made.look_around()
        db_timelines.note(made.timeline)
        if not db_timelines.is_old(made.timeline):
            return made
        made.close()
        left = [host for host in left if host != made.host]
    raise OldPrimary("Postgres was replaced by a standby, and none of the hosts is the one that replaced it")


def _avoid(hosts: Iterable[Host]) -> None:
    _avoided.update(dict.fromkeys(hosts, time.monotonic() + _AVOIDED_FOR))


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
