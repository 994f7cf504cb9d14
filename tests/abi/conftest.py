"""Fixtures of the loader's tests: hosts in C, and modules with a stub behind the loader."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abi.stub_module import compile_loader, compiler, make_package

Host = Callable[..., "subprocess.CompletedProcess[str]"]
HOST_SOURCE = Path(__file__).resolve().parent / "loader_host.c"


def without_python_variables() -> dict[str, str]:
    """The environment of the tests without PYTHONPATH and the like, which could bring another keyfob into a host."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="session")
def host_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("host") / "loader_host"
    command = [
        compiler(),
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(program),
        str(HOST_SOURCE),
        "-ldl",
        "-pthread",
    ]
    subprocess.run(command, check=True)
    return program


@pytest.fixture
def host(host_program: Path) -> Host:
    """Runs loader_host: `host(scenario, module, *more, **environment)`. It must end by itself, with exit status 0."""

    def run(scenario: str, module: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [host_program, scenario, module, *more],
            env=without_python_variables() | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{scenario} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loader as setup.py would configure it for this Python."""
    return compile_loader(tmp_path_factory.mktemp("loader"))


@pytest.fixture
def stub(tmp_path: Path, loader: Path) -> Path:
    """A module whose start is quick and fine."""
    return make_package(tmp_path / "stub", loader)
