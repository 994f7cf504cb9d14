"""A pytest plugin: the tests of some rules, run on a mutant of the module in place of the module.

    KEYFOB_RULES_ON=mutants.so KEYFOB_RULES=P2,O14 KEYFOB_MUTANT=... KEYFOB_MUTANT_OF=... pytest -p tests.rules.mutated

Each of the rules has to have a test here that fails on a mutant that breaks it (tests/check/test_rules_on_mutants.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tests.conftest

LIBRARY = Path(os.environ["KEYFOB_RULES_ON"])
tests.conftest.module_path = lambda: LIBRARY  # at once: all other files take the function from there


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(os.environ["KEYFOB_RULES"].split(","))
    chosen = [item for item in items if any(wanted & set(mark.args) for mark in item.iter_markers("rule"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
