"""No more PINs are hardened at a time than there are turns, and nobody fails for want of one."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from keyfob.store import SqliteStore, seal, turns
from keyfob.store.turns import Turn
from tests.store.samples import USER_PIN, make, start_program

if TYPE_CHECKING:
    from pathlib import Path

    from keyfob.store import Hardening

HOLDER = """
import sys, time
from keyfob.store.turns import Turn
with Turn(sys.argv[1]):
    print("has it", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST", 1)


def test_logins_at_once_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST", 2)
    seen, inside, counting, harden = make(path), [0, 0], threading.Lock(), seal.harden
    seen.close()

    def watched(pin: bytes, salt: bytes, hardening: Hardening, pepper: None) -> bytes:
        with counting:
            inside[0] += 1
            inside[1] = max(inside)
        time.sleep(0.01)
        try:
            return harden(pin, salt, hardening, pepper)
        finally:
            with counting:
                inside[0] -= 1

    monkeypatch.setattr(seal, "harden", watched)

    def log_in() -> None:
        store = SqliteStore.open(path, witness=str(path.parent / "seen"))
        store.login("user", USER_PIN)
        store.close()

    threads = [threading.Thread(target=log_in) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside[0] == 0
    assert 1 <= inside[1] <= 2


@pytest.mark.usefixtures("one_turn")
def test_a_process_that_dies_gives_its_turn_back(tmp_path: Path) -> None:
    holder = HOLDER.replace("with Turn", "from keyfob.store import turns\nturns.MOST = 1\nwith Turn")
    with start_program(holder, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"has it\n"
        held = turns._opened(str(tmp_path))
        assert not turns._take_one(held.number)
        process.kill()
        process.wait()
        assert turns._take_one(held.number)
    turns._open.discard(held)
    held.close()


@pytest.mark.usefixtures("one_turn")
def test_a_forked_child_keeps_no_turn_of_its_parent(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    started, ready = os.pipe()
    with Turn(str(tmp_path)):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.write(ready, b"x")
            os.read(reader, 1)  # until the test is over
            os._exit(0)
        os.read(started, 1)
    held = turns._opened(str(tmp_path))
    assert turns._take_one(held.number)
    turns._open.discard(held)
    held.close()
    for end in (reader, writer, started, ready):
        os.close(end)
    os.waitpid(child, 0)


@pytest.mark.usefixtures("one_turn")
def test_who_waits_for_a_turn_too_long_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST", 0.05)
    with Turn(str(tmp_path)), Turn(str(tmp_path)):
        pass


def test_a_place_that_cannot_be_written_makes_nobody_wait(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with Turn(str(tmp_path / "file")), Turn(None):
        pass
