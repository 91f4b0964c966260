"""When a publisher goes on on another channel, because the broker refused a message.

RabbitMQ before 3.12.5 asks the leader of a quorum queue at the first message of each channel. If that leader's node has just
died, the channel takes no message until the node is back, though another member of the queue has led it for long. A channel
that is opened later takes them. So a refusal may be the channel's, and to open another one costs nothing where it is not.
"""

from typing import Final

_FIRST: Final = 0.2  # seconds between the first two
_LONGEST: Final = 5.0
_CALM: Final = 30.0  # seconds without a refusal after which the next one counts as the first


class Renewal:
    """Decides at each refusal, in seconds of any clock: at once at the first, and then after pauses that double."""

    def __init__(self) -> None:
        self._refused = self._next = float("-inf")
        self._pause = _FIRST

    def due(self, now: float) -> bool:
        """Note a refusal; whether to open another channel now."""
        if now - self._refused > _CALM:
            self._pause, self._next = _FIRST, now
        self._refused = now
        if now < self._next:
            return False
        self._next = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST)
        return True
