"""The format of objects on disk: exact, the same for the same object, and safe on junk."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfob.store.record import FORMAT, HEAD, decode, encode

ATTRIBUTES = st.dictionaries(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=40), max_size=30)


@given(ATTRIBUTES)
def test_what_was_encoded_is_decoded(attributes: dict[int, bytes]) -> None:
    assert decode(encode(attributes)) == attributes


@given(ATTRIBUTES)
def test_equal_objects_are_equal_bytes(attributes: dict[int, bytes]) -> None:
    backwards = dict(reversed(attributes.items()))
    assert encode(backwards) == encode(attributes)


@given(st.binary(max_size=200))
def test_junk_is_refused_with_value_error_only(junk: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert encode(decode(junk)) == junk


@given(st.binary(max_size=60), st.integers(0, 6))
def test_junk_after_a_right_head_is_refused_with_value_error_only(junk: bytes, count: int) -> None:
    record = HEAD.pack(FORMAT, count) + junk
    with contextlib.suppress(ValueError):
        assert encode(decode(record)) == record


def test_no_part_of_a_record_is_a_record() -> None:
    record = encode({1: b"one", 2: b"", 0xCE534351: b"three"})
    for length in range(len(record)):
        with pytest.raises(ValueError, match=r"cut off|length"):
            decode(record[:length])
    with pytest.raises(ValueError, match="length"):
        decode(record + b"\0")


def test_attributes_out_of_order_or_twice_are_refused() -> None:
    for pairs in ((2, 1), (1, 1)):
        record = HEAD.pack(FORMAT, 2) + b"".join(n.to_bytes(4, "little") + bytes(4) for n in pairs)
        with pytest.raises(ValueError, match="order"):
            decode(record)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        decode(b"\x02" + encode({})[1:])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode({1 << 32: b""})
    with pytest.raises(ValueError, match="do not fit"):
        encode(dict.fromkeys(range(0x10000), b""))
