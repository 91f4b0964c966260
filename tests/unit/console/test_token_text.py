"""The text of tokens: what it looks like, and that a token that was altered is not taken for one."""

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.admin.access.token_text import SECRET_BYTES, make_token, read_token

RANDOM = bytes(range(2 * SECRET_BYTES))
TOKEN = make_token(RANDOM)


@given(st.binary(min_size=2 * SECRET_BYTES, max_size=2 * SECRET_BYTES))
def test_a_token_is_letters_and_digits_of_one_length_and_its_hash_is_of_all_of_it(randomness: bytes) -> None:
    text = make_token(randomness)
    read = read_token(text)

    assert re.fullmatch(r"wxs_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", text)
    assert read is not None
    assert (text[4:12], sha256(text.encode()).digest()) == (read.id, read.hash)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("0aZ_-é "))
def test_a_token_with_another_character_is_not_one(at: int, char: str) -> None:
    altered = TOKEN[:at] + char + TOKEN[at + 1 :]

    assert (altered == TOKEN) == (read_token(altered) is not None)


@pytest.mark.parametrize(
    "text", ["", "wxs_", TOKEN[:-1], TOKEN + "0", f" {TOKEN}", f"{TOKEN}\n", TOKEN.upper(), TOKEN.replace("wxs", "WXS")]
)
def test_what_was_cut_off_or_added_to_is_not_a_token(text: str) -> None:
    assert read_token(text) is None


def test_each_random_byte_makes_another_token() -> None:
    others = [make_token(RANDOM[:at] + bytes([RANDOM[at] ^ 1]) + RANDOM[at + 1 :]) for at in range(SECRET_BYTES)]

    assert SECRET_BYTES + 1 == len({TOKEN, *others})


def test_no_secret_is_in_what_is_logged_of_a_token() -> None:
    assert "hash" not in repr(read_token(TOKEN))
