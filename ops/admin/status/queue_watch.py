"""What waits in the broker's queues, for many who look: asked at most once in a few seconds, and not waited for long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ops.admin.asked import Asked
from ops.admin.status.route import Queues, unserved, waiting_in

KEPT: Final = 5.0  # seconds for which one answer is given to everybody
WAIT: Final = 1.0  # seconds that the one who asks waits for it


@dataclass(frozen=True, slots=True)
class SeenQueues:
    """What the broker said: `queues` is None if it did not answer, or if there is none to ask (`configured`)."""

    queues: Queues | None
    configured: bool = True

    @property
    def inbox(self) -> int | None:
        """How many messages wait to be recorded; None if that is not known."""
        return waiting_in(self.queues)

    @property
    def unserved(self) -> list[tuple[str, int]]:
        """Queues in which so many messages wait that nobody consumes."""
        return list(unserved(self.queues))


class QueueWatch:
    """Asks the broker in a thread of its own, while somebody looks; a broker that is away or hangs costs a page a second."""

    def __init__(self, amqp_url: str, ask: Callable[[str], Queues]) -> None:
        """`ask` gives up by itself after a few seconds."""
        self._url = amqp_url
        self._ask = ask
        self._asked: Asked[Queues] = Asked()
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._seen = SeenQueues(None, configured=bool(amqp_url))

    def look(self) -> SeenQueues:
        """What is known of the queues, a few seconds old at most."""
        if not self._url:
            return self._seen
        with self._lock:
            if time.monotonic() - self._at >= KEPT:
                self._asked.ask(lambda: self._ask(self._url))
                self._seen = self._answer()
                self._at = time.monotonic()
            return self._seen

    def _answer(self) -> SeenQueues:
        try:
            return SeenQueues(self._asked.answer(WAIT))
        except Exception:  # noqa: BLE001 - the broker's client raises what it likes; any of it means that there is no answer
            return SeenQueues(None)


#: For a console without a broker.
NO_QUEUES: Final = QueueWatch("", lambda _url: {})
