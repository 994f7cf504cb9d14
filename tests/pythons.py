"""The Pythons of this machine: nothing is named here, all are looked for on PATH and among pyenv's."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

SUITABILITY = Path(__file__).resolve().parent.parent / "scripts" / "interpreter.py"
ASK = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:2], sys.base_prefix)"


class Python:
    """An interpreter: the path of its executable and its version, e.g. (3, 11)."""

    __slots__ = ("executable", "prefix", "version")

    def __init__(self, executable: str, version: tuple[int, int], prefix: str) -> None:
        self.executable = executable
        self.version = version
        self.prefix = prefix

    def __repr__(self) -> str:
        return f"{self.executable} ({self.version[0]}.{self.version[1]})"


def _candidates() -> list[str]:
    names = ["python3", *(f"python3.{minor}" for minor in range(30))]
    folders = [Path(folder) for folder in os.get_exec_path() if Path(folder).name != "shims"]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    folders += [version / "bin" for version in sorted(root.glob("*"))]
    found = (shutil.which(name, path=str(folder)) for folder in folders for name in names)
    return sorted({os.path.realpath(path) for path in found if path})


def _ask(executable: str) -> Python | None:
    done = subprocess.run([executable, "-I", "-c", ASK], capture_output=True, text=True, timeout=30, check=False)
    words = done.stdout.split(maxsplit=3)
    if done.returncode != 0 or len(words) != 4 or words[0] != "CPython":
        return None
    return Python(executable, (int(words[1]), int(words[2])), words[3].strip())


@cache
def every() -> tuple[Python, ...]:
    """Every CPython 3, oldest first, one for each installation."""
    pythons = {python.prefix: python for path in _candidates() if (python := _ask(path)) is not None}
    return tuple(sorted(pythons.values(), key=lambda python: (python.version, python.executable)))


def can_carry_keyfob(python: Python) -> bool:
    command = [python.executable, str(SUITABILITY)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
