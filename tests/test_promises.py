"""SECURITY.md promises nothing without proof: each row of its tables names tests that fail if it is broken."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADER = "| Promise | Proved by |"
LINK = re.compile(r"\[(test_\w+)\]\((tests/[\w/]+\.py)\)")


def rows(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every promise with the (test, file) pairs that its row names."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    inside = False
    for line in text.splitlines():
        inside = line == HEADER or (inside and line.startswith("|"))
        if inside and line != HEADER and not line.startswith("|---"):
            promise, proofs = line.strip("|").rsplit("|", 1)
            found.append((promise.strip(), LINK.findall(proofs)))
    return found


PROMISES = rows((ROOT / "SECURITY.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("promise", "proofs"), PROMISES, ids=lambda value: value[:60] if isinstance(value, str) else ""
)
def test_every_promise_names_tests_that_exist(promise: str, proofs: list[tuple[str, str]]) -> None:
    assert proofs, f"nothing proves: {promise}"
    for test, file in proofs:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file} has no {test}"


def test_promises_are_read_from_the_page() -> None:
    assert len(PROMISES) >= 30
    proofs = "[test_a](tests/a.py), [test_b](tests/b.py)"
    page = f"{HEADER}\n|---|---|\n| Keys stay. | {proofs} |\n| More. | none |\n\n| x | y |\n"
    assert rows(page) == [("Keys stay.", [("test_a", "tests/a.py"), ("test_b", "tests/b.py")]), ("More.", [])]
