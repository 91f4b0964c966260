"""The rate limit of a source, in one ingress process."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import Catalog
from schemas.source import Source
from workers.ingress.problems import Problem
from workers.ingress.rate_limits import Limits


def limited(rate: float, name: str = "shop") -> Source:
    return Source("acme", name, "none", rate_limit=rate)


@dataclass
class Watch:
    """A catalog that the test changes."""

    current: Catalog

    @classmethod
    def of(cls, *sources: Source) -> "Watch":
        return cls(cls.catalog(*sources))

    @staticmethod
    def catalog(*sources: Source) -> Catalog:
        return Catalog(1, {}, {(source.tenant, source.name): source for source in sources}, {})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits(*sources: Source, processes: int = 1) -> tuple[Limits, Watch, Clock]:
    watch, clock = Watch.of(*sources), Clock()
    return Limits(watch, processes, clock), watch, clock  # type: ignore[arg-type]


def taken(some: Limits, source: Source, tries: int = 100) -> int:
    """How many of `tries` immediate requests are let through."""
    count = 0
    for _ in range(tries):
        try:
            some.take(source)
        except Problem:
            return count
        count += 1
    return count


def refusal(some: Limits, source: Source, *headers: tuple[str, str]) -> Problem:
    with pytest.raises(Problem) as problem:
        some.check(source, *headers)
    return problem.value


def told(problem: Problem) -> Mapping[str, str]:
    return dict(problem.headers)


@pytest.mark.parametrize(("rate", "burst"), [(10.0, 10), (1.0, 1), (0.5, 1), (2.5, 2), (1 / 3600, 1)])
def test_what_one_second_brings_may_come_at_once_and_one_always(rate: float, burst: int) -> None:
    source = limited(rate)
    some, _, _ = limits(source)

    assert burst == taken(some, source)


def test_after_that_it_is_the_rate_and_waiting_saves_up_no_more_than_a_burst() -> None:
    source = limited(10.0)
    some, _, clock = limits(source)
    taken(some, source)
    clock.now += 0.35
    after_a_while = taken(some, source)
    clock.now += 3600

    assert (3, 10) == (after_a_while, taken(some, source))


@pytest.mark.parametrize(("rate", "seconds"), [(100.0, "1"), (0.5, "2"), (1 / 60, "60"), (1 / 3600, "3600")])
def test_a_refusal_is_429_and_says_when_to_come_back(rate: float, seconds: str) -> None:
    source = limited(rate)
    some, _, clock = limits(source)
    taken(some, source)
    problem = refusal(some, source, ("Connection", "close"))

    assert (429, "rate_limited", seconds, "close") == (
        problem.status,
        problem.reason,
        told(problem)["Retry-After"],
        told(problem)["Connection"],
    )
    clock.now += float(seconds)
    some.take(source)


def test_looking_takes_nothing() -> None:
    source = limited(0.01)
    some, _, _ = limits(source)
    for _ in range(10):
        some.check(source)

    assert 1 == taken(some, source)


def test_each_process_lets_its_part_through() -> None:
    source = limited(100.0)
    some, _, clock = limits(source, processes=4)
    burst = taken(some, source)
    clock.now += 0.2

    assert (25, 5) == (burst, taken(some, source))


def test_sources_do_not_use_up_each_others_tokens() -> None:
    one, other = limited(1.0), limited(1.0, "other")
    some, _, _ = limits(one, other)

    assert (1, 1) == (taken(some, one), taken(some, other))


def test_a_changed_rate_holds_at_once_and_an_empty_bucket_stays_empty() -> None:
    source, faster = limited(1.0), limited(50.0)
    some, watch, clock = limits(source)
    taken(some, source)
    watch.current = watch.catalog(faster)
    at_once = taken(some, faster)
    clock.now += 0.1

    assert (0, 5) == (at_once, taken(some, faster))


def test_buckets_of_sources_that_are_gone_are_forgotten() -> None:
    sources = [limited(1.0, f"s{n}") for n in range(50)]
    some, watch, _ = limits(*sources)
    for source in sources:
        some.take(source)
    before = len(some)
    watch.current = watch.catalog(sources[0], Source("acme", "s1", "none"))
    some.check(limited(1.0, "new"))

    assert (50, 2) == (before, len(some))


@given(
    rate=st.floats(0.001, 1000),
    processes=st.integers(1, 8),
    waits=st.lists(st.floats(0, 5), max_size=30),
    tries=st.integers(1, 40),
)
def test_no_more_comes_through_than_a_burst_and_the_rate_allow(
    rate: float, processes: int, waits: list[float], tries: int
) -> None:
    source = limited(rate)
    some, _, clock = limits(source, processes=processes)
    count = 0
    for wait in waits:
        clock.now += wait
        count += taken(some, source, tries)

    share = rate / processes
    assert count <= max(1.0, share) + share * sum(waits) + 1e-6 * (1 + sum(waits) * share)
