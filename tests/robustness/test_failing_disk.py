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


def walk(home: Path, library: Path, calls: tuple[str, ...], errors: tuple[int, ...], modes: tuple[int, ...]) -> int:
    """How many trials there were."""
    lists = (",".join(calls), ",".join(map(str, errors)), ",".join(map(str, modes)))
    more = {"KEYFOB_HOME": str(home), "LD_PRELOAD": str(library)}
    found = answer_of(python_child("failing_disk", str(library), *lists, **more))
    assert found["wrong"] == []
    counts: dict[str, int] = found["counts"]
    assert counts["done"] > 0, "no failing call was without consequence: were they counted?"
    assert counts["refused"] > 0
    assert counts.get("not told", 0) < counts["refused"]
    print(counts)
    return sum(counts.values())


@pytest.mark.parametrize("call", ["create", "set_pin"])
def test_what_a_failing_disk_refuses_did_not_happen(home: Path, key: Path, library: Path, call: str) -> None:
    assert walk(home, library, (call,), (errno.EIO,), (ONCE,)) > 10


@pytest.mark.long
@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_and_how_in_each_call(home: Path, key: Path, library: Path, call: str) -> None:
    assert walk(home, library, (call,), (errno.EIO, errno.ENOSPC), (ONCE, FOREVER, SHORT)) > 30
