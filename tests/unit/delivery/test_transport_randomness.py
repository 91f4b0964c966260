"""Random bytes that a transport reads ahead."""

from workers.transports.transport import Fresh


def test_no_piece_is_given_twice() -> None:
    fresh = Fresh(24)

    pieces = [fresh() for _ in range(1000)]

    assert {24} == {len(each) for each in pieces}
    assert 1000 == len(set(pieces))
