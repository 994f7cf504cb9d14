"""Packages of another version than keyfob needs, in the interpreter that a Python host shares with it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from keyfob import dependencies
from tests.conftest import module_path

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = Path("/usr/bin/python3")
HOST = """
import ctypes, sys
sys.path[:0] = sys.argv[2:]
library = ctypes.CDLL(sys.argv[1])
print(library.C_GetFunctionList(ctypes.byref(ctypes.c_void_p())), library.C_GetInterface(None, None, None, 0))
"""


def host(*folders: str | Path, python: str | Path = sys.executable) -> tuple[str, str]:
    """Standard output and error of a Python program that loads the module, with these folders first on its path."""
    command = [python, "-I", *(("-S",) if python == sys.executable else ()), "-c", HOST, module_path(), *folders]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("cryptography", "__version__ = '38.0.4'\n"),
        ("apsw", "def apsw_version(): return '3.40.0.0'\n"),
        ("_cffi_backend", "__version__ = '1.15.1'\n"),
    ],
)
def test_an_older_package_of_the_host_is_named_at_the_start(tmp_path: Path, package: str, text: str) -> None:
    """With its version, its place and the version that is needed; once, in one line; and every entry says no."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(text)
    out, err = host(tmp_path)
    assert out == "5 5\n"
    assert err.count("\n") == 1
    assert err.startswith("keyfob: cannot import keyfob from ")
    name = "cffi" if package == "_cffi_backend" else package
    needed = ".".join(map(str, dependencies.NEEDED[name][1]))
    found = text.split("'")[1]
    assert f"too old: {name} {found} in {tmp_path}/{package}/__init__.py (keyfob needs {needed} or newer)" in err


def test_the_packages_that_are_here_are_new_enough() -> None:
    dependencies.check(*dependencies.NEEDED)


def test_the_lower_bounds_are_those_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["postgresql"]]
    bounds = dict(line.replace("[binary]", "").split(">=") for line in declared)
    # click and rich are the commands', which no host shares.
    assert set(bounds) - {"click", "rich"} == set(dependencies.NEEDED)
    for name, (_, needed) in dependencies.NEEDED.items():
        assert dependencies.parsed(bounds[name]) == needed


@pytest.mark.parametrize(
    ("version", "numbers"), [("50.0.2", (50, 0, 2)), ("50rc1", (50,)), ("3.46.0.dev1", (3, 46, 0)), ("x", ())]
)
def test_versions_are_read_up_to_their_first_word(version: str, numbers: tuple[int, ...]) -> None:
    assert dependencies.parsed(version) == numbers


@pytest.mark.interop
def test_debians_python_with_its_own_cryptography_hears_what_is_wrong() -> None:
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    has = f"{same[:-1]} or 50 <= int(__import__('cryptography').__version__.split('.')[0]))"
    if not DEBIAN.exists() or subprocess.run([DEBIAN, "-c", has], capture_output=True, check=False).returncode:
        pytest.skip(f"{DEBIAN} is of another version than keyfob's, or has no older cryptography")
    out, err = host(python=DEBIAN)
    assert out == "5 5\n"
    assert " cryptography " in err
    assert "(keyfob needs 50 or newer)" in err
