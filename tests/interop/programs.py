"""Running the programs that the interop tests need: found, bounded in time, and never quietly missing on CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT = 120.0
"""Seconds that any one program may take; far more than is needed, so that only a hang runs into it."""


def missing(what: str) -> NoReturn:
    """End the test because `what` is not there: skipped at home, failed on CI, where everything must be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; with CI=true nothing may be missing", pytrace=False)
    pytest.skip(what)


def program(name: str, package: str) -> str:
    """Path of the program `name`; without it the test ends through `missing`, which names the Debian `package`."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed (apt-get install {package})")
    return path


def run(
    command: Sequence[str | Path], env: Mapping[str, str], *, data: bytes = b"", timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[bytes]:
    """Run `command` to its end, whatever its exit status; standard error is joined to standard output."""
    return subprocess.run(
        [str(word) for word in command],
        env=dict(env),
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )


def succeed(
    command: Sequence[str | Path], env: Mapping[str, str], *, data: bytes = b"", timeout: float = TIMEOUT
) -> str:
    """Run `command` and return what it printed; AssertionError with all its output when it fails."""
    done = run(command, env, data=data, timeout=timeout)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{output}"
    return output
