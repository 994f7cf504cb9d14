"""A libkeyfob.so with a package of a few lines behind it, to see what the loader does when starts are slow, or fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("loader", "interpreter", "memory", "libraries", "folders")
SOURCES = [REPOSITORY / "src" / "keyfob" / "abi" / f"{name}.c" for name in NAMES]

# The three functions as Python functions, and room for what memory.c gives. The second imports a module slowly.
START = """
import ctypes

class Tables(ctypes.Structure):
    Function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
    _fields_ = [("function_list", Function), ("interface_list", Function), ("interface", Function)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("present_call", "short_of_memory", "may_begin", "libraries")]

def ok(argument):
    return 0

def slow(argument):
    from keyfob import slow
    return slow.ANSWER

TABLES = Tables(Tables.Function(ok), Tables.Function(slow), Tables.Function(ok))

def tables():
    return ctypes.addressof(TABLES)
"""
SLOW = "import time\ntime.sleep(0.5)\nANSWER = 0\n"


def compiler() -> str:
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler; with CI=true nothing may be missing")
        pytest.skip("no C compiler")
    return found


def loader_config() -> str:
    """loader_config.h for the Python that runs the tests."""
    command = "import sys; sys.path.insert(0, sys.argv[1]); import interpreter; print(interpreter.loader_config())"
    scripts = str(REPOSITORY / "scripts")
    return subprocess.run([sys.executable, "-c", command, scripts], capture_output=True, text=True, check=True).stdout


def library_of_python() -> Path:
    """The shared library that the loader starts."""
    found = re.search(r'#define KEYFOB_LIBPYTHON "(.*)"', loader_config())
    assert found is not None
    return Path(found.group(1))


def compile_loader(folder: Path, **changes: str) -> Path:
    """libkeyfob.so in `folder`, warnings being errors; `changes` are rows of loader_config.h, e.g. LIBPYTHON."""
    text = loader_config()
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^#define KEYFOB_{name} .*$", lambda _: f"#define KEYFOB_{name} {value}", text)  # noqa: B023
        assert count == 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loader_config.h").write_text(text)
    library = folder / "libkeyfob.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
    headers = [f"-I{folder}", f"-I{sysconfig.get_path('include')}"]
    link = ["-Wl,-z,nodelete,-z,now,-z,defs", "-ldl", "-lm"]
    subprocess.run([compiler(), *flags, *headers, "-o", library, *SOURCES, *link], check=True)
    return library


def make_package(folder: Path, loader: Path, start: str = START) -> Path:
    """Package keyfob in `folder` with the loader and the source of its abi/start.py; the path of its libkeyfob.so."""
    package = folder / "keyfob"
    (package / "abi").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "abi" / "__init__.py").touch()
    (package / "abi" / "start.py").write_text(start)
    (package / "slow.py").write_text(SLOW)
    return Path(shutil.copy(loader, package))
