"""Writes that fail: what was refused did not happen, what was acknowledged survives a crash (failing_disk.py)."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from tests.abi.stub_module import compiler
from tests.robustness.failing_disk import CALLS, FOREVER, ONCE, SHORT
from tests.robustness.hosts import HERE, answer_of, python_child


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c, compiled."""
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    warnings = ("-Wall", "-Wextra", "-Werror")
    command = [compiler(), "-shared", "-fPIC", "-O1", *warnings, "-o", str(path), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return path


def walk(
    home: Path, library: Path, calls: tuple[str, ...], errors: tuple[int, ...], modes: tuple[int, ...]
) -> dict[str, int]:
    """How many trials there were, by what was answered."""
    lists = (",".join(calls), ",".join(map(str, errors)), ",".join(map(str, modes)))
    more = {"KEYFOB_HOME": str(home), "LD_PRELOAD": str(library)}
    found = answer_of(python_child("failing_disk", str(library), *lists, **more))
    assert found["wrong"] == []
    counts: dict[str, int] = found["counts"]
    assert counts["done"] > 0, "no failing call was without consequence: were they counted?"
    assert counts["refused"] > 0
    assert counts.get("not told", 0) < counts["refused"]
    print(counts)
    return counts


@pytest.mark.parametrize("call", ["create", "set_pin"])
def test_what_a_failing_disk_refuses_did_not_happen(home: Path, key: Path, library: Path, call: str) -> None:
    assert sum(walk(home, library, (call,), (errno.EIO,), (ONCE,)).values()) > 10


@pytest.mark.long
def test_a_quota_that_is_used_up_is_a_full_disk(home: Path, key: Path, library: Path) -> None:
    """Destroying an object uses the room that is kept for it, whatever the name of the shortage."""
    full, quota = (walk(home, library, ("destroy",), (error,), (ONCE,)) for error in (errno.ENOSPC, errno.EDQUOT))
    assert full == quota


@pytest.mark.long
@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_and_how_in_each_call(home: Path, key: Path, library: Path, call: str) -> None:
    counts = walk(home, library, (call,), (errno.EIO, errno.ENOSPC), (ONCE, FOREVER, SHORT))
    assert sum(counts.values()) > 30
