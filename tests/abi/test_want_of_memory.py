"""Whatever a library makes of it when it gets no memory: the host is told CKR_HOST_MEMORY (abi/answers.py, door.py)."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, ENOMEM

import pytest
from keyfob._abi import lib

from keyfob import log
from keyfob.abi import answers, door
from keyfob.functions.state import STATE
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from tests.conftest import Fob


@pytest.fixture
def refused(fob: Fob) -> Iterator[None]:
    """This thread's call was refused memory by our interpreter's allocator (memory.c)."""
    assert STATE.library is not None
    lib.keyfob_present_call().is_urgent = 1
    yield
    lib.keyfob_present_call().is_urgent = 0


@pytest.mark.parametrize("problem", [MemoryError(), OSError(ENOMEM, "no memory"), PKCS11Error(CKR.HOST_MEMORY)])
def test_want_of_memory_is_told(fob: Fob, problem: BaseException) -> None:
    assert answers.answer("C_Sign", problem) == CKR.HOST_MEMORY


@pytest.mark.parametrize("problem", [ValueError("secret"), OSError(EACCES, "no"), ImportError("no", name="one")])
def test_other_failures_are_not_taken_for_it(fob: Fob, problem: BaseException) -> None:
    assert answers.answer("C_Sign", problem) == CKR.GENERAL_ERROR


@pytest.mark.parametrize("problem", [ValueError("the library's way to say it"), ImportError("no", name="one")])
def test_any_failure_of_a_call_that_was_refused_memory_is(refused: None, problem: BaseException) -> None:
    assert answers.answer("C_Sign", problem) == CKR.HOST_MEMORY


def test_what_has_a_code_of_its_own_keeps_it(refused: None) -> None:
    assert answers.answer("C_Sign", PKCS11Error(CKR.SIGNATURE_INVALID)) == CKR.SIGNATURE_INVALID


def test_the_log_needs_no_memory_for_the_answer(fob: Fob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(log, "line", fail)
    assert answers.answer("C_Sign", MemoryError()) == CKR.HOST_MEMORY
    assert answers.answer("C_Sign", PKCS11Error(CKR.DATA_INVALID, "reason")) == CKR.DATA_INVALID


def test_where_even_the_answer_fails_the_door_tells_want_of_memory_from_other_reasons() -> None:
    assert door._otherwise(MemoryError, MemoryError(), None) is None, "C sees the default, CKR_HOST_MEMORY"
    assert door._otherwise(RecursionError, RecursionError(), None) == CKR.GENERAL_ERROR
