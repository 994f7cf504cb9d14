"""The memory of objects read lately holds neither too many nor too much."""

from __future__ import annotations

from keyfob.spec.constants import CKA
from keyfob.store.recent import CAPACITY, LARGE, Recent
from keyfob.store.record import Record, encode


def test_what_is_used_stays_and_the_rest_goes() -> None:
    recent = Recent()
    for number in range(2 * CAPACITY):
        recent.put(number, {CKA.ID: b"%d" % number})
        assert recent.get(0) is not None, "used again and again"
    assert recent.get(1) is None
    assert recent.get(2 * CAPACITY - 1) == {CKA.ID: b"%d" % (2 * CAPACITY - 1)}


def test_large_objects_count_for_several() -> None:
    for value in ({CKA.VALUE: bytes(100 * LARGE)}, Record(encode({CKA.VALUE: bytes(100 * LARGE)}))):
        recent = Recent()
        for number in range(1000):
            recent.put(number, value)
        kept = sum(recent.get(number) is not None for number in range(999, -1, -1))
        assert CAPACITY // 200 < kept < CAPACITY // 40
