"""API keys: format, checksum, comparison."""

import math
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts.keys import matches, new_key, parse_key

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_key_has_prefix_id_secret_and_checksum() -> None:
    key = new_key()
    found = re.fullmatch(r"pg_([0-9A-Za-z]{8})_([0-9A-Za-z]{27})([0-9A-Za-z]{6})", key.text)
    assert found
    assert found[1] == key.key_id
    value = 0
    for digit in found[3]:
        value = value * 62 + BASE62.index(digit)
    assert value == zlib.crc32(key.text[:-6].encode())


def test_the_secret_has_at_least_160_bits() -> None:
    assert 27 * math.log2(62) >= 160
    assert len({new_key().text for _ in range(1000)}) == 1000


def test_a_key_is_read_back() -> None:
    key = new_key()
    assert parse_key(key.text) == key
    assert matches(key.text, key.digest)
    assert not matches(key.text, new_key().digest)
    assert not matches(key.text, None)


def test_neither_a_key_nor_its_text_is_shown() -> None:
    key = new_key()
    assert key.text not in repr(key)


@given(position=st.integers(0, 44), character=st.sampled_from(BASE62 + "_-. é"))
def test_one_wrong_character_is_noticed_without_a_database(position: int, character: str) -> None:
    text = new_key().text
    changed = text[:position] + character + text[position + 1 :]
    assert (parse_key(changed) is not None) == (changed == text)


@pytest.mark.parametrize(
    "text",
    ["", "pg_", "Bearer x", "pg_12345678_" + "0" * 33, " " + new_key().text],
    ids=["empty", "prefix alone", "a scheme before it", "too short", "a space before it"],
)
def test_what_is_no_key_is_not_read(text: str) -> None:
    assert parse_key(text) is None


@given(st.text())
def test_any_text_may_come(text: str) -> None:
    assert parse_key(text) is None
