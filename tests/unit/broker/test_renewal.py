from itertools import pairwise

from workers.amqp.publisher import Renewal


def channels(refusals: list[float]) -> list[float]:
    """The refusals after which another channel is opened."""
    renewal = Renewal()
    return [at for at in refusals if renewal.due(at)]


def test_pauses_between_channels_double_up_to_five_seconds() -> None:
    opened = channels([number / 1000 for number in range(30_000)])

    pauses = [round(later - at, 1) for at, later in pairwise(opened)]
    assert [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0] == pauses[:9]


def test_a_refusal_after_half_a_minute_without_one_counts_as_the_first() -> None:
    long = [float(number) for number in range(20)]

    assert [50.0, 50.2] == [at for at in channels([*long, 50.0, 50.1, 50.2]) if at >= 50]
