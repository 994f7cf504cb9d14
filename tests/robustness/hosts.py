"""C programs as hosts of the module: compiled once a run, started, watched and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyfob.abi.cryptoki import DECLARATIONS
from keyfob.spec import constants
from tests.abi.stub_module import compiler
from tests.conftest import module_path
from tests.robustness import fuzz_calls

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PATIENCE = 480  # seconds: a hundred forks on a busy machine
PREFIXES = ("CKA", "CKD", "CKF", "CKK", "CKM", "CKO", "CKR", "CKS", "CKU")


def header() -> str:
    """cryptoki.h: the declarations and constants that keyfob itself is built from."""
    lines = ["#ifndef CRYPTOKI_H", "#define CRYPTOKI_H", DECLARATIONS]
    for prefix in PREFIXES:
        table = vars(getattr(constants, prefix))
        lines += [f"#define {prefix}_{name} {value}UL" for name, value in table.items() if isinstance(value, int)]
    return "\n".join([*lines, "#endif", ""])


def compile_host(name: str, folder: Path) -> Path:
    """The program of `name`.c in `folder`, warnings being errors."""
    (folder / "cryptoki.h").write_text(header())
    (folder / "fuzz_calls.h").write_text(fuzz_calls.header())
    program = folder / name
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{HERE}"]
    subprocess.run([compiler(), *flags, "-o", program, HERE / f"{name}.c", "-ldl", "-lm", "-pthread"], check=True)
    return program


def environment(**more: str) -> dict[str, str]:
    """The environment of the tests without PYTHONPATH and the like."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | more


def start(program: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    """A host that goes on until it is killed; its output is read by the caller, its complaints come with it."""
    command = [str(program), str(module_path()), *arguments]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(program: Path, *arguments: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    """A host that ends by itself, with exit status 0."""
    command = [str(program), str(module_path()), *arguments]
    done = subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def python_child(
    name: str, *arguments: str, prefix: Sequence[str] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """tests/robustness/`name`.py as a fresh process, with the module's path as its first argument."""
    program = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"tests.robustness.{name}")
    command = [*prefix, *program, str(module_path()), *arguments]
    return subprocess.run(
        command,
        env=environment(PYTHONPATH=str(module_path().parents[1]), **more),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def answer_of(done: subprocess.CompletedProcess[str]) -> Any:
    """What a Python child printed as JSON, and nothing else may it have printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return json.loads(done.stdout)
