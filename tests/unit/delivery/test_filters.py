"""CloudEvents filter dialects."""

import pytest

from pipeline.delivery.filters import MAX_DEPTH, compile_filter

EVENT = {"type": "order.paid", "source": "shop", "subject": "order-1"}


def nested(depth: int) -> dict:
    return {"exact": {"type": "order.paid"}} if depth == 0 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("matches", "expression"),
    [
        (True, None),
        (True, {"exact": {"type": "order.paid"}}),
        (False, {"exact": {"type": "order.pai"}}),
        (False, {"exact": {"type": "ORDER.PAID"}}),
        (True, {"exact": {"type": "order.paid", "source": "shop"}}),
        (False, {"exact": {"type": "order.paid", "source": "web"}}),
        (True, {"prefix": {"type": "order."}}),
        (False, {"prefix": {"type": "paid"}}),
        (True, {"suffix": {"type": ".paid"}}),
        (False, {"suffix": {"type": "order"}}),
        (False, {"exact": {"absent": "x"}}),
        (False, {"prefix": {"absent": "x"}}),
        (False, {"suffix": {"absent": "x"}}),
        (True, {"not": {"exact": {"absent": "x"}}}),
        (True, {"all": [{"prefix": {"type": "order."}}, {"exact": {"source": "shop"}}]}),
        (False, {"all": [{"prefix": {"type": "order."}}, {"exact": {"source": "web"}}]}),
        (True, {"any": [{"exact": {"source": "web"}}, {"exact": {"source": "shop"}}]}),
        (False, {"any": [{"exact": {"source": "web"}}, {"exact": {"source": "mail"}}]}),
        (True, {"not": {"any": [{"exact": {"source": "web"}}, {"not": {"prefix": {"type": "order."}}}]}}),
    ],
)
def test_a_filter_matches_what_its_dialect_says(matches, expression) -> None:
    assert matches == compile_filter(expression)(EVENT)


@pytest.mark.parametrize(
    "expression",
    [
        {},
        [],
        "order.*",
        {"exact": {"type": "a"}, "prefix": {"type": "b"}},
        {"exakt": {"type": "a"}},
        {"exact": {}},
        {"exact": []},
        {"exact": {"type": 1}},
        {"exact": {"type": ""}},
        {"exact": {1: "a"}},
        {"prefix": "order."},
        {"all": []},
        {"any": {}},
        {"all": [{"exact": {"type": "a"}}, {"nope": 1}]},
        {"not": []},
        {"not": {}},
        {"sql": "type = 'a'"},
    ],
)
def test_anything_else_is_refused(expression) -> None:
    with pytest.raises(ValueError, match=r"filter|takes|nest"):
        compile_filter(expression)


def test_filters_nest_so_deep_and_no_deeper() -> None:
    assert compile_filter(nested(MAX_DEPTH))(EVENT) is (MAX_DEPTH % 2 == 0)
    with pytest.raises(ValueError, match="nest"):
        compile_filter(nested(MAX_DEPTH + 1))


def test_the_reason_is_short_however_long_the_dialect_is() -> None:
    with pytest.raises(ValueError, match="unknown filter dialect") as refused:
        compile_filter({"x" * 100_000: {}})

    assert len(str(refused.value)) < 200
