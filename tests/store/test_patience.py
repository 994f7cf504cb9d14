"""Waiting for another process's lock: as long as others get on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKR
from keyfob.store import SqliteStore, patience
from keyfob.store.patience import Patience
from tests.store.samples import USER_PIN, certificate, make, refused

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Each pause takes as long as it says, and no time passes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Header:
    """A WAL index in which commits show."""

    def __init__(self) -> None:
        self.commits = 0

    def read(self) -> bytes:
        return b"%d" % self.commits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def waiting(header: Header) -> Patience:
    found = Patience()
    found.watcher = header  # type: ignore[assignment]
    return found


def test_it_ends_when_nobody_gets_on(clock: Clock) -> None:
    waits, looks = waiting(Header()), 0
    while waits(looks):
        looks += 1
    assert patience.LONGEST_WAIT < sum(clock.pauses) < patience.LONGEST_WAIT + 1
    assert max(clock.pauses) <= 1.5 * patience.LONGEST_PAUSE


def test_it_goes_on_while_others_commit(clock: Clock) -> None:
    header = Header()
    waits = waiting(header)
    for looks in range(20_000):
        header.commits += looks % 100 == 0
        assert waits(looks)
    assert sum(clock.pauses) > 10 * patience.LONGEST_WAIT


def test_a_lock_that_nobody_gives_back_is_an_error_in_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)
    one, other = make(path), SqliteStore.open(path)
    with one._database.writing(), refused(CKR.FUNCTION_FAILED):
        other.insert([certificate(1)])
    other.insert([certificate(1)])
    one.login("user", USER_PIN)
    assert len(one.find([])) == 1
    one.close()
    other.close()
