"""Common code of mailboxes read through an HTTP API: authorised requests, concurrent downloads, one batch."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from pipeline.formats.timestamps import retry_after
from schemas.mailbox import Cursor, Mailbox, MailItem, RawMail
from workers.mail.api.exchange import AT_ONCE, MAX_JSON, Answer, Request
from workers.mail.api.quota import Quota
from workers.mail.mailbox_session import Away, Known, PullBounds, Pulled, Refused, SourceError, Throttled, Token
from workers.net.terms import deployment

REQUEST_SECONDS: Final = 60.0  # for all requests of a call other than a pull
MARGIN: Final = timedelta(seconds=60)  # between a mail's date and the time when the API lists it, at most
MAX_MISSING: Final = 3  # in one batch; more means that the API is failing
MISSING: Final = Answer(404, {}, b"")
_LARGEST: Final = 2**63 - 1  # of a bigint
_ENOUGH_TIME: Final = 0.25  # share of a batch's time that must be left to begin another page

Answers = list[Answer | Away | None]  # as `MailHttp.ask` returns them
#: The provider's own meaning of an answer other than 2xx, or None. A `Throttled` has 0 seconds if the API gives none.
Fault = Callable[[Answer], SourceError | None]
#: Takes the answer for an id, 404 included, and adds the mail to the batch.
Take = Callable[[str, Answer], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mail to be downloaded: the URL of its bytes, and the URL of its metadata."""

    url: str
    about: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Gathered:
    """The result of one pull while it is gathered, and its bounds."""

    bounds: PullBounds
    mails: list[RawMail] = field(default_factory=list)
    kept: list[MailItem] = field(default_factory=list)
    size: int = 0  # bytes
    missing: int = 0  # mails that the API lists and does not return
    done: int = 0  # other mails that were answered, whatever the answer
    began: float = field(default_factory=time.monotonic)

    def add(self, mail: RawMail) -> None:
        """Add a mail."""
        self.mails.append(mail)
        self.size += len(mail.raw)

    def fresh(self, ids: Iterable[str], key: Callable[[str], str], known: Known) -> list[str]:
        """Those of `ids` whose mail is neither held already nor in the batch: pages overlap. `key` makes a source key."""
        keys = {id_: key(id_) for id_ in ids}
        held = known.keys([*keys.values()]) | {mail.source_key for mail in self.mails} | {item.source_key for item in self.kept}
        return [id_ for id_ in keys if keys[id_] not in held]

    def keep(self, key: str, folder: str, size: int, at: datetime, flag: str) -> None:
        """Add a mail that is recorded without its bytes; `flag` says why."""
        self.kept.append(MailItem(key, folder, None, size, at, None, (flag,)))

    @property
    def full(self) -> bool:
        """Whether nothing more may be added; always false before the first mail."""
        late = self.bounds.until - time.monotonic() <= 0 and self.done > 0
        return late or len(self.mails) >= self.bounds.mails or self.size >= self.bounds.size

    @property
    def over(self) -> bool:
        """Whether no other page is to be requested."""
        left = self.bounds.until - time.monotonic()
        return self.full or left < _ENOUGH_TIME * (self.bounds.until - self.began)


class Api:
    """Requests of one mailbox to one provider. The token is sent to that provider's origin only, and is in no error's text."""

    def __init__(self, mailbox: Mailbox, base: str, token: Token | None, fault: Fault, pace: Quota) -> None:
        if token is None:
            raise Refused(f"a mailbox of kind {mailbox.kind} needs oauth")
        self.base = base.rstrip("/")
        self._token = token
        self._bearer = token()
        self._fault = fault
        self._pace = pace
        self._until = 0.0
        from workers.mail.api.http_client import MailHttp  # noqa: PLC0415 - loads aiohttp

        self._http = MailHttp(deployment())

    def end_by(self, until: float | None = None) -> None:
        """Sets the deadline of all requests from now on, by the monotonic clock; by default `REQUEST_SECONDS` from now."""
        self._until = time.monotonic() + REQUEST_SECONDS if until is None else until

    def close(self) -> None:
        """Closes the connections."""
        with suppress(Exception):
            self._http.close()

    def get(self, url: str, units: float, headers: Mapping[str, str] | None = None, *, may_lack: bool = False) -> Answer:
        """The answer to one request; raises a `SourceError` unless it is 2xx, or a 404 with `may_lack`."""
        self._spend(units)
        request = self._request(url, headers or {}, MAX_JSON)
        answer = self._ask([request], MAX_JSON)[0]
        if answer is None:
            raise Away("the answer is too large")
        if isinstance(answer, Away):
            raise answer
        if not (may_lack and answer.status == 404) and (fault := self._judge(answer)) is not None:
            raise fault
        return answer

    def download(self, mails: Mapping[str, Wanted], batch: Gathered, take: Take, units: float, limit: int) -> bool:
        """Passes each answer to `take`. False if some are left: the batch is full, or the provider throttles or fails.

        Raises a `SourceError` if nothing in the batch is to be stored first, or for other errors than `Throttled` and `Away`.
        """
        left = list(mails)
        while left:
            if batch.full:
                return False
            now, left = left[:AT_ONCE], left[AT_ONCE:]
            try:
                self._spend(units * len(now))
                wanted = {id_: mails[id_] for id_ in now}
                requests = [self._request(each.url, each.headers, limit) for each in wanted.values()]
                answers = self._ask(requests, batch.bounds.size - batch.size, batch.bounds.hold)
                whole = self._hand_over(wanted, answers, batch, take, units)
            except (Throttled, Away):
                if not batch.done:
                    raise
                return False
            if not whole:
                return False
        return True

    def _hand_over(self, mails: Mapping[str, Wanted], answers: Answers, batch: Gathered, take: Take, units: float) -> bool:
        """Whether each request had an answer. Raises the worst error, after all other answers were passed to `take`."""
        faults: list[SourceError] = []
        whole = None not in answers
        for position, (id_, mail) in enumerate(mails.items()):
            came = self._outcome(answers[position], mail, batch, units)
            answers[position] = None  # frees the memory of large answers one by one
            if isinstance(came, Answer):
                take(id_, came)
                batch.done += came is not MISSING
            elif came is not None:
                faults.append(came)
        if faults:
            raise min(faults, key=lambda fault: not isinstance(fault, Refused))
        return whole

    def _outcome(
        self, answer: Answer | Away | None, mail: Wanted, batch: Gathered, units: float
    ) -> Answer | SourceError | None:
        if not isinstance(answer, Answer) or answer.status == 404:
            return answer
        fault = self._judge(answer)
        if isinstance(fault, Away) and self._only_this_fails(mail, batch, units):
            return MISSING
        return fault or answer

    def _only_this_fails(self, mail: Wanted, batch: Gathered, units: float) -> bool:
        """Whether the API returns the mail's metadata: then only this mail fails, and it must not block the others."""
        if batch.missing >= MAX_MISSING:
            return False
        self.get(mail.about, units, mail.headers, may_lack=True)
        batch.missing += 1
        return True

    def _spend(self, units: float) -> None:
        if wait := self._pace.take(units):
            raise Throttled("this process's request quota is used up", wait)

    def _request(self, url: str, headers: Mapping[str, str], limit: int) -> Request:
        ours, given = urlsplit(self.base), urlsplit(url)
        if (given.scheme, given.netloc.lower()) != (ours.scheme, ours.netloc.lower()):
            raise Away(f"{ours.hostname} gave a link to another host, {given.hostname!r:.100}")
        return Request(url, headers, limit=limit)

    def _ask(self, requests: Sequence[Request], budget: int, hold: Callable[[int], None] | None = None) -> Answers:
        """The answers. Requests that are answered 401 are repeated once, with a new token."""
        answers = self._http.ask([self._signed(each) for each in requests], self._seconds(), budget, hold)
        refused = [n for n, answer in enumerate(answers) if isinstance(answer, Answer) and answer.status == 401]
        if refused:
            self._bearer = self._token(fresh=True)
            again = self._http.ask([self._signed(requests[n]) for n in refused], self._seconds(), budget, hold)
            for n, answer in zip(refused, again, strict=True):
                answers[n] = answer
        return answers

    def _seconds(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise Away("out of time")
        return left

    def _signed(self, request: Request) -> Request:
        headers = {**request.headers, "Authorization": f"Bearer {self._bearer}"}
        return Request(request.url, headers, limit=request.limit)

    def _judge(self, answer: Answer) -> SourceError | None:
        if answer.ok:
            self._pace.accepted()
            return None
        fault = self._fault(answer)
        if fault is None:
            if answer.status in (401, 403):  # a new token was granted, so consent is valid; a permission may be missing
                fault = Refused(f"answered {answer.status}: {error_text(answer)}", certain=False)
            elif answer.status == 429:
                fault = Throttled(error_text(answer), 0.0)
            else:
                fault = Away(f"answered {answer.status}: {error_text(answer)}")
        if isinstance(fault, Throttled):
            asked = retry_after(answer.headers.get("retry-after"), datetime.now(UTC))
            return Throttled(str(fault), self._pace.refused(fault.seconds or None if asked is None else asked))
        return fault


def page_by_page(turn: Callable[[Cursor, Gathered], Pulled], cursor: Cursor, bounds: PullBounds) -> Pulled:
    """Reads page after page until the bounds are reached. The cursor moves past a page only when all of the page is done.

    `turn` fills the batch from the page at a cursor; the cursor that it returns has `skip` if part of the page is left.
    """
    batch = Gathered(bounds)
    seen, total, moved = 0, None, False
    while True:
        try:
            done = turn(cursor, batch)
        except (Throttled, Away):
            if not moved and not batch.done:
                raise
            return Pulled(batch.mails, cursor, True, seen, total, kept=batch.kept, missing=batch.missing)
        seen, total = seen + done.seen, done.total if total is None else total
        if not done.more or batch.over or "skip" in done.cursor:
            return Pulled(batch.mails, done.cursor, done.more, seen, total, kept=batch.kept, missing=batch.missing)
        cursor, moved = done.cursor, True


@contextmanager
def malformed_as_away() -> Iterator[None]:
    """Raises `Away` for an answer that does not have the documented shape."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Away(f"the API's answer is malformed: {type(error).__name__}") from error


def error_text(answer: Answer) -> str:
    """The provider's error code and message, bounded."""
    error = answer.json().get("error")
    code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (error, None)
    return f"{code}: {message}"[:300] if message else f"{code or 'no reason given'}"[:300]


def value_at(answer: Answer, *path: str) -> Any:
    """The value at a path of names in the answer; None if there is none."""
    value: Any = answer.json()
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> int | None:
    """A count or size that an API writes as text or as a number, as a bigint; None if it is neither."""
    try:
        return min(max(0, int(value)), _LARGEST)
    except (TypeError, ValueError, OverflowError):
        return None


def server_time(answer: Answer) -> datetime:
    """The time of the answer by the provider's clock, which also dates its mails; by ours if there is no Date."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.now(UTC)
