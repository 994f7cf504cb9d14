"""A pytest plugin: the tests run on the copy of keyfob that KEYFOB_MUTATED names, in every process that they start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import keyfob


def pytest_configure() -> None:
    copy = Path(os.environ["KEYFOB_MUTATED"])
    if not Path(keyfob.__file__).is_relative_to(copy):
        raise pytest.UsageError(f"{keyfob.__file__} is not the copy in {copy}")
