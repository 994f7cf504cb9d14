"""The defects that the experiments are tried with fit the sources as they are: the long tests would say so late."""

from __future__ import annotations

from pathlib import Path

import pytest

import keyfob
from tests.experiments.mutants import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_applies_and_compiles(name: str) -> None:
    mutant = MUTANTS[name]
    compile(mutant.mutated(Path(keyfob.__file__).parent), mutant.source, "exec", dont_inherit=True)
