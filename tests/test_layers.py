"""Imports go one way: spec < (mechanisms | store) < token < functions < abi; nss knows spec only; cli sits on top."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "keyfob"
ROOMS = {
    "spec": set(),
    "mechanisms": {"spec"},
    "store": {"spec"},
    "token": {"spec", "mechanisms", "store"},
    "functions": {"spec", "mechanisms", "token"},
    "abi": {"spec", "token", "functions", "_abi"},
    "nss": {"spec"},
    "cli": {"spec", "mechanisms", "store", "token", "functions", "nss"},
}
# At the foot of the house, open to every room.
FOUNDATION = {"log", "config", "aside", "dependencies", "descriptors", "environment", "files", "libraries", "settled"}
FOUNDATION |= {"__init__"}


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "keyfob":
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "keyfob":
                found.update(f"keyfob.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    allowed = ROOMS[room] | FOUNDATION | {room}
    wrong = [
        f"{path.relative_to(SOURCE)} imports {module}"
        for path in sorted((SOURCE / room).rglob("*.py"))
        for module in imports(path)
        if (target := room_of(module)) is not None and target not in allowed and (SOURCE / target).exists()
    ]
    assert not wrong


def test_the_foundation_imports_no_room() -> None:
    wrong = [
        f"{name}.py imports {module}"
        for name in sorted(FOUNDATION - {"__init__"})
        for module in imports(SOURCE / f"{name}.py")
        if room_of(module) not in FOUNDATION | {None}
    ]
    assert not wrong


def test_only_abi_touches_cffi() -> None:
    wrong = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "abi" and imports(path) & {"cffi", "keyfob._abi", "_cffi_backend"}
    ]
    assert not wrong


# What C_Initialize must not pay for (HOUSE fact 10): each costs milliseconds that every call of certutil would wait.
SLOW = {
    *("typing", "pathlib", "re", "enum", "dataclasses", "logging", "threading", "functools", "contextlib", "tomllib"),
    *("click", "rich", "cryptography.hazmat", "hashlib", "ssl", "sqlite3"),
}


def test_loading_the_module_imports_nothing_slow() -> None:
    """Run as the loader runs it: without site, with the paths of this environment."""
    program = "import sys; sys.path[:0] = sys.argv[1:]; import keyfob.abi.start; print(*sys.modules)"
    paths = [str(SOURCE.parent), *(entry for entry in sys.path if "site-packages" in entry)]
    command = [sys.executable, "-I", "-S", "-c", program, *paths]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "keyfob.abi.entries" in loaded
    assert not loaded & SLOW
