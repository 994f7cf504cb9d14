"""Saved states of operations are bounded in number and in the data that they hold (token/operation_state.py)."""

from __future__ import annotations

import pytest

from keyfob.mechanisms.base import MOST_KEPT, Parts
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.operation_state import MOST_HELD, MOST_STATES, SavedStates
from keyfob.token.session import SIGN, Operation


class Collecting:
    """An operation that keeps what it is given."""

    def __init__(self, held: int) -> None:
        self.held = held

    def copy(self) -> Collecting:
        return Collecting(self.held)


def saved(states: SavedStates, held: int) -> bytes:
    return states.save({SIGN: Operation(Collecting(held), 0)})


def is_kept(states: SavedStates, reference: bytes) -> bool:
    try:
        states.restore(reference)
    except PKCS11Error as problem:
        return problem.rv != CKR.SAVED_STATE_INVALID
    return True


def test_states_that_hold_much_data_push_the_oldest_out() -> None:
    states = SavedStates()
    first, second, third = (saved(states, MOST_HELD // 2) for _ in range(3))
    assert [is_kept(states, reference) for reference in (first, second, third)] == [False, True, True]
    small = [saved(states, 100) for _ in range(10)]
    assert [is_kept(states, reference) for reference in (second, third)] == [False, True]
    assert all(is_kept(states, reference) for reference in small)


def test_many_states_push_the_oldest_out() -> None:
    states = SavedStates()
    references = [saved(states, 0) for _ in range(MOST_STATES + 1)]
    assert not is_kept(states, references[0])
    assert is_kept(states, references[1])


def test_parts_are_kept_up_to_a_limit_and_copied() -> None:
    parts = Parts()
    parts.add(b"one ")
    other = parts.copy()
    parts.add(b"two")
    assert (parts.joined(), other.joined(), parts.held) == (b"one two", b"one ", 7)
    with pytest.raises(PKCS11Error) as raised:
        parts.add(bytes(MOST_KEPT))
    assert raised.value.rv == CKR.DEVICE_MEMORY
    assert parts.joined() == b"one two"
