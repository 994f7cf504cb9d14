"""`pip install .` into the oldest and the newest Python of this machine: the module starts that very interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import pythons
from tests.abi.conftest import Host

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).resolve().parents[2]
UNWANTED = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.so", "__pycache__", "_abi.c")
CALL = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).C_GetFunctionList(ctypes.byref(ctypes.c_void_p())))"


def suitable() -> list[pythons.Python]:
    """The oldest and the newest version that can carry keyfob."""
    fitting = [python for python in pythons.every() if pythons.can_carry_keyfob(python)]
    return list({python.version: python for python in (fitting[:1] + fitting[-1:])}.values())


class Installation:
    """A virtual environment with keyfob."""

    def __init__(self, python: pythons.Python, folder: Path) -> None:
        self.python = python
        self.executable = folder / "bin" / "python"
        self.site = folder / "lib" / f"python{python.version[0]}.{python.version[1]}" / "site-packages"
        self.module = self.site / "keyfob" / "libkeyfob.so"
        self._source = folder.parent / "source"

    def install(self) -> None:
        shutil.copytree(REPOSITORY, self._source, ignore=UNWANTED)
        succeed(self.python.executable, "-m", "venv", self.executable.parent.parent)
        lock = REPOSITORY / "requirements" / "runtime.txt"
        succeed(self.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", lock)
        succeed(self.executable, "-m", "pip", "install", "--quiet", self._source)


def succeed(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module", params=suitable(), ids=lambda python: f"{python.version[0]}.{python.version[1]}")
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(request.param, tmp_path_factory.mktemp("install") / "environment")
    made.install()
    return made


def test_the_wheel_is_for_this_version_of_python_only(installation: Installation) -> None:
    major, minor = installation.python.version
    tag = f"cp{major}{minor}-cp{major}{minor}-linux"
    wheel = next(installation.site.glob("keyfob-*.dist-info/WHEEL")).read_text()
    assert f"Tag: {tag}" in wheel
    assert "Root-Is-Purelib: false" in wheel


def test_types_are_shipped_and_c_sources_are_not(installation: Installation) -> None:
    package = installation.module.parent
    assert (package / "py.typed").exists()
    assert not [*package.rglob("*.c"), *package.rglob("*.h")]


def test_a_c_host_starts_that_python(installation: Installation, host: Host, home: Path) -> None:
    done = host("calls", installation.module, KEYFOB_HOME=str(home))
    assert done.stdout.count(" 0\n") == 6
    assert done.stderr == ""


def test_that_python_shares_its_interpreter(installation: Installation, home: Path) -> None:
    assert home.is_dir()
    source = CALL + "; import keyfob; print(keyfob.__file__)"
    done = succeed(installation.executable, "-c", source, installation.module, cwd=home)
    assert done.stdout == f"0\n{installation.module.with_name('__init__.py')}\n"
    assert done.stderr == ""


def test_a_python_of_another_version_is_refused(installation: Installation) -> None:
    others = [python for python in pythons.every() if python.version != installation.python.version]
    if not others:
        pytest.skip("this machine has only one version of Python")
    done = succeed(others[-1].executable, "-I", "-c", CALL, installation.module)
    assert done.stdout == "5\n"
    assert "p11-kit server" in done.stderr


def test_the_command_names_the_module(installation: Installation) -> None:
    done = succeed(installation.executable.with_name("keyfob"), "module-path")
    assert done.stdout == f"{installation.module}\n"


def test_an_unsuitable_python_is_told_why_at_build_time(tmp_path: Path) -> None:
    """setup.py with a Python that lost its shared library, as far as it can tell."""
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY, source, ignore=UNWANTED)
    script = source / "scripts" / "interpreter.py"
    script.write_text(script.read_text().replace("if shared_library() is None:", "if True:"))
    options = ["--no-deps", "--no-build-isolation", "--target", str(tmp_path / "target")]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "keyfob cannot be built: " in done.stdout + done.stderr
    assert "apt install libpython" in done.stdout + done.stderr
