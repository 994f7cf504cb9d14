"""scripts/interpreter.py: which Pythons are turned away, in which words, and what loader.c is told of the others."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.abi.stub_module import compiler

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "interpreter.py"


@pytest.fixture
def interpreter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interpreter", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def complaint(module: ModuleType) -> str:
    text = module.problem()
    assert isinstance(text, str)
    return text


def test_this_python_is_suitable(interpreter: ModuleType) -> None:
    assert interpreter.problem() is None


def test_a_python_without_shared_library_names_the_packages(
    interpreter: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "shared_library", lambda: None)
    text = complaint(interpreter)
    assert f"apt install libpython{interpreter.minor()}" in text
    assert "python3-libs" in text
    assert "PYTHON_CONFIGURE_OPTS=--enable-shared" in text


def test_a_python_without_headers_names_the_packages(interpreter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "has_headers", lambda: False)
    assert "python3-dev" in complaint(interpreter)


def test_a_free_threaded_python_is_turned_away(interpreter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = sysconfig.get_config_var

    def answer(name: str) -> Any:
        return 1 if name == "Py_GIL_DISABLED" else ask(name)

    monkeypatch.setattr(interpreter.sysconfig, "get_config_var", answer)
    assert "free-threaded" in complaint(interpreter)


@pytest.mark.parametrize(
    ("owner", "name", "value", "word"),
    [
        ("sys", "version_info", (3, 10, 13), "3.11 or later"),
        ("sys", "platform", "darwin", "Linux"),
        ("platform", "python_implementation", lambda: "PyPy", "CPython"),
    ],
)
def test_other_unsuitable_pythons_are_turned_away(
    interpreter: ModuleType, monkeypatch: pytest.MonkeyPatch, owner: str, name: str, value: Any, word: str
) -> None:
    monkeypatch.setattr(getattr(interpreter, owner), name, value)
    assert word in complaint(interpreter)


def test_a_library_of_the_same_version_elsewhere_is_not_taken(
    interpreter: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(interpreter, "_mapped_files", list)
    monkeypatch.setattr(interpreter.sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(interpreter.sysconfig, "get_config_var", {"LIBDIR": str(tmp_path)}.get)
    assert interpreter.shared_library() is None
    library = tmp_path / interpreter.shared_library_name()
    library.touch()
    assert interpreter.shared_library() == str(library)


def test_any_path_survives_as_a_c_string(interpreter: ModuleType, tmp_path: Path) -> None:
    path = 'a "quoted" \\ path??/ with ünïcode\n9 and \udcff'
    source = f"#include <stdio.h>\nint main(void) {{ fputs({interpreter._literal(path)}, stdout); return 0; }}"
    program = tmp_path / "program"
    subprocess.run([compiler(), "-trigraphs", "-x", "c", "-", "-o", program], input=source, text=True, check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == path.encode("utf-8", "surrogateescape")
