"""Where secrets are held: bytes like others, apart from others, and gone when the last reference is (held.c)."""

from __future__ import annotations

import ctypes
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from keyfob._held import Secret, hold, wipe

HEAD = bytes.__basicsize__ - 1
LARGEST = 8192 - HEAD - 1


def flags_at(address: int) -> set[str]:
    """The kernel's flags of the mapping that has this address: dd left out of core dumps, lo locked."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if found is not None:
            here = int(found[1], 16) <= address < int(found[2], 16)
        elif here and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no mapping")


def may_lock() -> bool:
    """Two chunks."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return limit == resource.RLIM_INFINITY or limit >= 1 << 20


@pytest.fixture
def secret() -> bytes:
    return hold(b"a secret of some length")


def test_what_is_held_is_bytes(secret: bytes) -> None:
    assert isinstance(secret, bytes)
    assert type(secret) is Secret
    assert secret == b"a secret of some length"
    assert hash(secret) == hash(b"a secret of some length")
    assert {b"a secret of some length": 1}[secret] == 1
    assert type(secret[2:8]) is bytes
    assert secret[2:8] == b"secret"
    assert b"".join([b"<", secret, b">"]) == b"<a secret of some length>"
    assert hold(secret) is secret
    assert hold(bytearray(b"abc")) == hold(memoryview(b"abc")) == b"abc"
    assert hold(b"") == b""
    with pytest.raises(TypeError):
        Secret(b"not by hand")


def test_the_arena_is_left_out_of_core_dumps_and_locked(secret: bytes) -> None:
    flags = flags_at(id(secret))
    assert "dd" in flags
    if may_lock():
        assert "lo" in flags


CHILD = """
import os, sys, warnings
from keyfob._held import hold
from tests.store.test_held import flags_at
warnings.simplefilter("ignore")
values = [hold(bytes(8000)) for _ in range(40)]  # more than one chunk
addresses = [id(values[0]), id(values[-1])]
def flags():
    return [sorted(flags_at(address) & {"dd", "lo"}) for address in addresses]
before = flags()
if os.fork() == 0:
    del values[1]
    values.append(hold(b"used again"))
    print(before == flags(), before)
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


def test_the_arena_is_locked_in_a_forked_child_that_uses_it_too() -> None:
    """A fork gives no lock to the child, and servers do their work in children."""
    command, root = [sys.executable, "-c", CHILD], Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    expected = ["dd", "lo"] if may_lock() else ["dd"]
    assert done.stdout == f"True {[expected, expected]}\n"


def test_no_page_beside_the_arena_may_be_touched(secret: bytes) -> None:
    ranges = re.findall(r"([0-9a-f]+)-([0-9a-f]+) (....)", Path("/proc/self/maps").read_text())
    mappings = [(int(start, 16), int(end, 16), mode) for start, end, mode in ranges]
    place = next(i for i, (start, end, _) in enumerate(mappings) if start <= id(secret) < end)
    before, (start, end, _), after = mappings[place - 1 : place + 2]
    assert (before[1], before[2][:3]) == (start, "---")
    assert (after[0], after[2][:3]) == (end, "---")


@pytest.mark.parametrize("size", [1, 30, 500, LARGEST])
def test_what_dies_is_overwritten(size: int) -> None:
    held = hold(b"\xc3" * size)
    address = id(held) + HEAD
    assert ctypes.string_at(address, size) == b"\xc3" * size
    del held
    assert b"\xc3" not in ctypes.string_at(address, size)


def test_what_is_wiped_is_so_for_everybody(secret: bytes) -> None:
    other = secret
    wipe(secret)
    assert other == bytes(len(other))
    with pytest.raises(TypeError):
        wipe(b"shared by who knows whom")


def test_places_are_used_again_and_too_much_goes_elsewhere() -> None:
    first = hold(b"1" * 100)
    address = id(first)
    del first
    assert id(hold(b"2" * 110)) == address
    values = [bytes([i % 251]) * (i % 700) for i in range(2000)]
    held = [hold(value) for value in values]
    assert held == values
    large = hold(b"large" * 10_000)
    assert large == b"large" * 10_000
    assert "dd" not in flags_at(id(large))
