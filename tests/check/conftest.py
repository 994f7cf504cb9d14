"""Tiny modules that do one thing wrong, compiled for the tests of the checker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("module.c")
FAULTS = (
    *("NOTHING", "CRASH", "HANG", "EXIT", "PRINT", "OVERRUN", "NO_POINTER", "CRASH_AT_EXIT", "REFUSE_FLAGS", "TOKEN"),
    *("LOAD_CRASH", "LOAD_HANG", "LOAD_EXIT", "HANG_AT_ONCE", "HUGE_COUNT", "COMPLAIN", "HEAP", "SPIN", "CLOSE_FILES"),
    *("CHILD", "FLOOD"),
)
Build = Callable[[str], str]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`build("CRASH")`: the absolute path of a module with that fault."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler: keyfob itself needs one to be built")
    folder = tmp_path_factory.mktemp("modules")

    def made(fault: str) -> str:
        path = folder / f"{fault.lower()}.so"
        if not path.exists():
            define = f"-DBREAK={FAULTS.index(fault)}"
            subprocess.run([compiler, "-shared", "-fPIC", "-w", define, "-o", path, SOURCE], check=True)
        return str(path)

    return made
