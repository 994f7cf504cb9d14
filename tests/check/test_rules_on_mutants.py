"""A rule's tests can fail: on a mutant that breaks the rule one of them does, and on the shim alone none.

`tools/generate_rules.py` sees that every rule has a test; here it is seen that the test looks at the rule.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.nss.rules import ALL
from tests.check.mutant import compile_mutants
from tests.check.test_mutants import MUTANTS
from tests.conftest import module_path

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("rules", "functional")
"""Whose tests call the module in their own process, through the C ABI alone."""
HANGS = 60
"""Seconds after which the tests of a rule are taken to hang in a mutant, which is a way to fail."""
PASSED, SOME_FAILED, NOTHING_RUN = 0, 1, 5
RULES = {rule.id for rule in ALL}  # the mutants' table has the checker's own X1 to X5 as well
PAIRS = [(name, rule) for name, mutant in MUTANTS.items() for rule in sorted(mutant.must & RULES)]
# Tests that look at the library's file or at its lists of functions, which are the shim's own.
OF_THE_LIBRARY = (
    "tests/functional/test_general.py",
    "tests/rules/test_installation.py",
    "tests/rules/test_general.py::test_the_list_of_an_older_client_serves_the_same_tokens",
)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_mutants(tmp_path_factory.mktemp("mutants"))


def files_about(rule: str) -> list[Path]:
    """The files with a test of the rule."""
    files = (path for folder in FOLDERS for path in sorted((ROOT / "tests" / folder).glob("test_*.py")))
    return [path for path in files if f'"{rule}"' in path.read_text()]


def outcome(
    library: Path, mutant: str | None, rules: str, files: list[Path], limit: float | None, *without: str
) -> tuple[int, str]:
    """How pytest ended (negative: by a signal, a crash of the module's), and what it said last."""
    variables = {"KEYFOB_RULES_ON": str(library), "KEYFOB_RULES": rules, "KEYFOB_MUTANT_OF": str(module_path())}
    if mutant is not None:
        variables["KEYFOB_MUTANT"] = mutant
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.rules.mutated", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(f"--deselect={each}" for each in without), *files],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "KEYFOB_MUTANT"} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    return done.returncode, done.stdout[-2000:]


@pytest.mark.parametrize(("name", "rule"), PAIRS)
def test_a_mutant_fails_a_test_of_each_rule_that_it_breaks(name: str, rule: str, library: Path) -> None:
    try:
        code, said = outcome(library, name, rule, files_about(rule), HANGS)
    except subprocess.TimeoutExpired:
        return
    assert code != NOTHING_RUN, f"{rule} has no such test"
    assert code != PASSED, f"all tests of {rule} pass on {name}: {said}"
    # 1: a test failed. Another code, with nothing on standard error of pytest itself: the module ended the process.
    assert code == SOME_FAILED or "no tests ran" not in said or name == "exits", said


def test_the_shim_itself_fails_no_test(library: Path) -> None:
    folders = [ROOT / "tests" / folder for folder in FOLDERS]
    code, said = outcome(library, None, ",".join(sorted(RULES)), folders, None, *OF_THE_LIBRARY)
    assert code == PASSED, said
