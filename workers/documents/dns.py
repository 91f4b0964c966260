"""Look-up of the keys of mails' signatures in DNS: bounded in time, cached, and suspended after a look-up without an answer."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import dns.exception
import dns.resolver

from pipeline.mail.authentication import DnsAway

LOOKUP: Final = 2.0  # seconds for one look-up
PER_MAIL: Final = 4.0  # seconds for all look-ups of one mail
AWAY: Final = 30.0  # seconds without any look-up after one that had no answer
KEPT: Final = 300.0  # seconds for which an answer is cached
MOST: Final = 5000  # cached answers


class KeyLookup:
    """Looks up keys, for one mail after the other. For a single thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        self._away_until = 0.0
        self._spent = 0.0

    def begin(self) -> None:
        """Start a new mail, with a time budget of its own."""
        self._spent = 0.0

    def __call__(self, name: str) -> bytes | None:
        """The first TXT record of `name`; None if there is none. Raises `DnsAway`."""
        now = self._clock()
        kept = self._answers.get(name)
        if kept is not None and kept[0] > now:
            return kept[1]
        if now < self._away_until or self._spent >= PER_MAIL:
            raise DnsAway("DNS did not answer just before")
        try:
            answer = _ask(name)
        except DnsAway:
            self._away_until = self._clock() + AWAY
            raise
        finally:
            self._spent += self._clock() - now
        self._answers[name] = (now + KEPT, answer)
        while len(self._answers) > MOST:
            self._answers.popitem(last=False)
        return answer


def _ask(name: str) -> bytes | None:
    try:
        found = dns.resolver.resolve(f"{name}.", "TXT", lifetime=LOOKUP)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
        return None
    except (dns.exception.Timeout, dns.resolver.NoNameservers, dns.resolver.NoResolverConfiguration, OSError) as error:
        raise DnsAway(type(error).__name__) from error
    except (dns.exception.DNSException, ValueError):  # not a valid name
        return None
    return next((b"".join(record.strings) for record in found), None)
