import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import Claim
from workers.relay.worker import BATCH, BATCH_BYTES, batched, spacing

CLAIMS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3 * BATCH_BYTES // 2)), max_size=300).map(
    lambda pairs: [Claim(id, endpoint, size) for id, (endpoint, size) in enumerate(pairs)]
)
SMALL = st.lists(st.integers(1, 3), max_size=300).map(
    lambda endpoints: [Claim(id, endpoint, 10) for id, endpoint in enumerate(endpoints)]
)


@given(CLAIMS | SMALL)
def test_every_claim_is_in_one_batch_in_its_order(claims) -> None:
    assert claims == [claim for batch in batched(claims) for claim in batch]


@given(CLAIMS | SMALL)
def test_batches_are_bounded_in_number_and_in_bytes(claims) -> None:
    for batch in batched(claims):
        assert 1 <= len(batch) <= BATCH
        assert len(batch) == 1 or sum(claim.size for claim in batch) <= BATCH_BYTES


@given(SMALL)
def test_no_more_batches_are_made_than_needed(claims) -> None:
    assert -(-len(claims) // BATCH) == len(list(batched(claims)))


@pytest.mark.parametrize(("found", "milliseconds"), [(0, 2), (1, 3), (5, 7), (8, 10), (500, 10)])
def test_rounds_follow_each_other_the_sooner_the_less_they_find(found, milliseconds) -> None:
    assert milliseconds == pytest.approx(1000 * spacing(found))
