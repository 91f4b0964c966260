"""Look-up of the keys of mails' signatures in DNS: bounded in time, cached, and suspended while there is no answer.

Look-ups of a domain are suspended after one without an answer; all look-ups only if the resolver itself does not answer.
Otherwise a sender could stop the look-ups for all others by signing with a domain whose servers stay silent.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import dns.exception
import dns.resolver

from pipeline.mail.authentication import DnsAway

LOOKUP: Final = 2.0  # seconds for one look-up
PER_MAIL: Final = 4.0  # seconds for all look-ups of one mail
PROBE: Final = 1.0  # seconds for the resolver to answer a question about the root
AWAY: Final = 30.0  # seconds without look-ups of a domain, or without any, after there was no answer
IN_A_ROW: Final = 3  # look-ups without an answer after which the resolver is probed
KEPT: Final = 300.0  # seconds for which an answer is cached
MOST: Final = 5000  # cached answers
MOST_SUSPENDED: Final = 5000  # domains

_KEY_LABEL: Final = "._domainkey."  # between a key's selector and its domain (RFC 6376 §3.6.2.1)


class KeyLookup:
    """Looks up keys, for one mail after the other. For a single thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        self._suspended: OrderedDict[str, float] = OrderedDict()  # domain -> until when
        self._away_until = 0.0
        self._unanswered = 0  # look-ups in a row
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
        domain = name.lower().rpartition(_KEY_LABEL)[2]
        if now < max(self._away_until, self._suspended.get(domain, 0.0)) or self._spent >= PER_MAIL:
            raise DnsAway("DNS did not answer just before")
        try:
            answer = _ask(name)
        except DnsAway:
            self._suspend(domain)
            raise
        finally:
            self._spent += self._clock() - now
        self._unanswered = 0
        self._answers[name] = (now + KEPT, answer)
        while len(self._answers) > MOST:
            self._answers.popitem(last=False)
        return answer

    def _suspend(self, domain: str) -> None:
        """Suspend look-ups of the domain; all look-ups after `IN_A_ROW` failures if the resolver does not answer either."""
        self._unanswered += 1
        if self._unanswered >= IN_A_ROW:
            if _resolver_answers():
                self._unanswered = 0
            else:
                self._away_until = self._clock() + AWAY
        self._suspended[domain] = self._clock() + AWAY
        self._suspended.move_to_end(domain)
        while len(self._suspended) > MOST_SUSPENDED:
            self._suspended.popitem(last=False)


def _resolver_answers() -> bool:
    """Whether the resolver answers, even with an error: every resolver can, because the root's servers are always known."""
    try:
        dns.resolver.resolve(".", "NS", lifetime=PROBE)
    except (dns.exception.Timeout, dns.resolver.NoNameservers) as error:
        return any(response is not None for *_, response in error.kwargs.get("errors", ()))
    except (dns.resolver.NoResolverConfiguration, OSError):
        return False
    except dns.exception.DNSException:  # such as NXDOMAIN
        return True
    return True


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
