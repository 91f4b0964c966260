from hypothesis import given
from hypothesis import strategies as st

from schemas.delivery import Claim
from workers.relay import BATCH, BATCH_BYTES, batched

CLAIMS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3 * BATCH_BYTES // 2)), max_size=300).map(
    lambda pairs: [Claim(id, endpoint, size) for id, (endpoint, size) in enumerate(pairs)]
)
SMALL = st.lists(st.integers(1, 3), max_size=300).map(
    lambda endpoints: [Claim(id, endpoint, 10) for id, endpoint in enumerate(endpoints)]
)


@given(CLAIMS | SMALL)
def test_every_claim_is_in_one_batch_of_its_endpoint_in_its_order(claims) -> None:
    batches = list(batched(claims))

    assert claims == sorted((claim for batch in batches for claim in batch), key=lambda claim: claim.id)
    for endpoint in {claim.endpoint_id for claim in claims}:
        own = [claim for batch in batches for claim in batch if batch[0].endpoint_id == endpoint]
        assert [claim for claim in claims if claim.endpoint_id == endpoint] == own


@given(CLAIMS | SMALL)
def test_batches_are_bounded_in_number_and_in_bytes(claims) -> None:
    for batch in batched(claims):
        assert 1 <= len(batch) <= BATCH
        assert len(batch) == 1 or sum(claim.size for claim in batch) <= BATCH_BYTES


@given(SMALL)
def test_no_more_batches_are_made_than_needed(claims) -> None:
    counts = [sum(claim.endpoint_id == endpoint for claim in claims) for endpoint in (1, 2, 3)]

    assert sum(-(-count // BATCH) for count in counts) == len(list(batched(claims)))
