"""The catalogue of rules is complete, every rule has a test, and docs/rules.md says what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from demo.steps import all_steps
from keyfob.nss.rules import ALL, GROUPS, Rule, group, rule

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"G": 7, "S": 20, "SE": 15, "O": 21, "K": 12, "I": 2, "N": 19, "P": 40}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/generate_rules.py."""
    name = "generate_rules"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_statement_and_pitfall_is_there_in_order() -> None:
    wanted = [f"{letters}{number}" for letters, count in COUNTS.items() for number in range(1, count + 1)]
    assert [each.id for each in ALL] == wanted
    assert list(GROUPS) == list(COUNTS)
    assert all(rule(each.id) is each for each in ALL)
    assert [each for letters in GROUPS for each in group(letters)] == list(ALL)


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.id)
def test_a_rule_tells_everything(each: Rule) -> None:
    for text in (each.title, each.statement, each.nss, each.expects, each.user):
        assert text == text.strip()
        assert text
    assert not each.title.endswith(".")
    assert all(text.endswith((".", '"')) for text in (each.statement, each.nss, each.expects, each.user))
    assert each.where
    assert all(len(where.split()) == 2 and where.split()[0].endswith(".c") for where in each.where)
    assert (each.severity is None) == (each.today is not None) == (each.group != "P")


def test_every_rule_has_a_test_that_tells_what_keyfob_does(generator: ModuleType) -> None:
    found = generator.proofs([*generator.marked_tests(), *generator.demo_steps()])
    assert set(found) == {each.id for each in ALL}


def test_the_steps_of_the_demo_are_proofs_by_nss_itself(generator: ModuleType) -> None:
    steps = {step.name: step for step in generator.demo_steps()}
    assert steps["rsa-key"].proof == "NSS's tools"
    assert {"O13", "O18", "P20"} <= set(steps["rsa-key"].rules)
    assert set(steps) == set(all_steps())


def test_the_page_is_what_the_generator_writes(generator: ModuleType) -> None:
    assert generator.main(["--check"]) == 0


def test_an_unknown_rule_a_silent_test_and_a_rule_without_one_are_errors(generator: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_some.py").write_text(
        "import pytest\n"
        'pytestmark = [pytest.mark.rule("G1")]\n'
        "def test_silent():\n    pass\n"
        '@pytest.mark.rule("X9", "G1", "G2")\n'
        'def test_known():\n    """Says so.\n\n    And more."""\n'
        'def helper():\n    """No test."""\n'
    )
    silent, known = generator.marked_tests(folder)
    assert (silent.name, silent.says, silent.rules) == ("test_silent", "", ("G1",))
    assert (known.says, known.rules, known.path) == ("Says so.", ("G1", "X9", "G2"), "tests/test_some.py")
    with pytest.raises(generator.RulesError) as problem:
        generator.proofs([silent, known])
    problems = str(problem.value).split("\n")
    assert "tests/test_some.py:3: test_silent has a rule and no docstring" in problems
    assert "tests/test_some.py:6: test_known names X9, which is no rule" in problems
    assert "G3: no test proves it" in problems
    assert not any(line.startswith(("G1:", "G2:")) for line in problems)
