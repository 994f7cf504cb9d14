"""kill -9 at any moment: everything acknowledged is there, nothing half done is.

KEYFOB_KILLS=N for more than the quick run's kills.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, make, private_key, start_program

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("KEYFOB_KILLS", "20"))

# Inserts pairs, updates and deletes; says what it begins and what is done, one line each, unbuffered.
WRITER = """
import os, random, sys
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, private_key
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
store = SqliteStore.open(sys.argv[1])
store.login("user", USER_PIN)
chance = random.Random(int(sys.argv[2]))
pairs = []
say("ready")
for i in range(int(sys.argv[2]) * 100000, 1 << 40):
    choice = chance.random()
    if choice < 0.6 or len(pairs) < 3:
        say("begin insert", i)
        pair = store.insert([private_key(i), certificate(i)])
        pairs.append(pair)
        say("done", *pair)
    elif choice < 0.8:
        pair = chance.choice(pairs)
        say("begin update", i, pair[0])
        store.update(pair[0], private_key(i))
        say("done")
    else:
        pair = pairs.pop(chance.randrange(len(pairs)))
        say("begin delete", *pair)
        store.delete(pair)
        say("done")
"""

PIN_CHANGER = """
import os, sys
from keyfob.store import SqliteStore
store = SqliteStore.open(sys.argv[1])
pin = sys.argv[2].encode()
for i in range(1 << 40):
    store.login("user", pin)
    pin = b"PIN %d of %d" % (i, os.getpid())
    os.write(1, b"begin " + pin + b"\\n")
    store.set_pin("user", pin)
    os.write(1, b"done\\n")
    store.logout()
"""


def killed_after(program: str, seconds: float, *arguments: object) -> list[str]:
    """The complete lines that the program says before it is killed, so many seconds after its first one."""
    with start_program(program, *arguments) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, "the program ended by itself"
        time.sleep(seconds)
        assert process.poll() is None, "the program ended by itself"
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    return (first + rest).decode().splitlines()


class Expectation:
    """What the acknowledgements oblige to: number -> the sample's number, private ones and public ones."""

    def __init__(self) -> None:
        self.private: dict[int, int] = {}
        self.public: dict[int, int] = {}

    def follow(self, lines: list[str]) -> tuple[str, list[int]] | None:
        """Take in what was done; what was begun and not acknowledged is returned."""
        begun: tuple[str, list[int]] | None = None
        for line in lines:
            words = line.split()
            if words[0] == "begin":
                begun = (words[1], [int(word) for word in words[2:]])
            elif words[0] == "done":
                assert begun is not None
                self._apply(*begun, [int(word) for word in words[1:]])
                begun = None
        return begun

    def _apply(self, what: str, values: list[int], numbers: list[int]) -> None:
        if what == "insert":
            self.private[numbers[0]] = self.public[numbers[1]] = values[0]
        elif what == "update":
            self.private[values[1]] = values[0]
        else:
            del self.private[values[0]], self.public[values[1]]

    def settle(self, store: SqliteStore, begun: tuple[str, list[int]] | None) -> None:
        """The call that was cut short was done as a whole or not at all: see which, and expect that from now on."""
        if begun is None:
            return
        what, values = begun
        if what == "insert":
            numbers = [*store.find([(CKA.LABEL, b"key %d" % values[0])])]
            numbers += store.find([(CKA.LABEL, b"certificate %d" % values[0])])
            assert len(numbers) in (0, 2)
            if numbers:
                self._apply(what, values, numbers)
        elif what == "update":
            if store.get(values[1]) == private_key(values[0]):
                self._apply(what, values, [])
        else:
            gone = [store.get(number) is None for number in values]
            assert gone in ([True, True], [False, False])
            if gone[0]:
                self._apply(what, values, [])

    def check(self, store: SqliteStore) -> None:
        assert store.find([]) == sorted([*self.private, *self.public])
        for number, i in self.private.items():
            assert store.get(number) == private_key(i)
        for number, i in self.public.items():
            assert store.get(number) == certificate(i)


@pytest.mark.long
def test_nothing_acknowledged_is_lost_and_nothing_half_done_remains(path: Path) -> None:
    make(path).close()
    chance = random.Random(2)
    expected = Expectation()
    calls = 0
    for trial in range(1, KILLS + 1):
        lines = killed_after(WRITER, chance.random() * 0.05, path, trial)
        begun = expected.follow(lines)
        calls += len(lines) // 2
        store = SqliteStore.open(path)
        store.login("user", USER_PIN)
        expected.settle(store, begun)
        expected.check(store)
        if trial % 10 == 0:
            assert store.verify() == []
        store.close()
    assert calls > KILLS


def test_a_pin_change_cut_short_leaves_the_old_or_the_new_pin(path: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    [number] = store.insert([private_key(1)])
    store.close()
    pin = USER_PIN
    for trial in range(max(3, KILLS // 5)):
        lines = killed_after(PIN_CHANGER, 0.005 * (trial % 7), path, pin.decode())
        begun = [line.removeprefix("begin ").encode() for line in lines if line != "done"]
        done = len(begun) - (lines[-1] != "done")
        possible = begun[done - 1 :] if done else [pin, *begun]
        store = SqliteStore.open(path)
        opened = [candidate for candidate in possible if _opens(store, candidate)]
        assert len(opened) == 1, "neither the old nor the new PIN, or both"
        pin = opened[0]
        store.login("user", pin)
        assert store.get(number) == private_key(1)
        assert store.verify() == []
        store.close()


def _opens(store: SqliteStore, pin: bytes) -> bool:
    try:
        store.verify_pin("user", pin)
    except PKCS11Error as problem:
        if problem.rv != CKR.PIN_INCORRECT:
            raise
        return False
    return True
