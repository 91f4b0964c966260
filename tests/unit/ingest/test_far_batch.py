import pytest

from workers.ingest.held import far_batch


@pytest.mark.parametrize(
    ("seconds", "most"),
    [(0.0, 2000), (0.004, 2000), (0.05, 3000), (10.0, 4000)],
)
def test_a_batch_is_the_larger_the_farther_postgres_is_and_never_smaller_than_set(seconds, most) -> None:
    assert most == far_batch(2000, seconds)
