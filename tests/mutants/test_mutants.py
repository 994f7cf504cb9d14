"""The lists of mutants fit the source as it is; whether tests notice each one, `make mutants` tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.catalogue import FEWEST, OTHERWISE, MutantError, Sources, by_rule, mutants, read


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources()


def test_every_mutant_applies_in_one_place_and_compiles(sources: Sources) -> None:
    problems = []
    for mutant in mutants():
        try:
            file, text = sources.mutated(mutant)
        except MutantError as problem:
            problems.append(str(problem))
            continue
        if file.endswith(".py"):
            try:
                compile(text, file, "exec", dont_inherit=True)
            except SyntaxError as problem:
                problems.append(f"{mutant.place}: {file} would not compile: {problem}")
    assert not problems, "\n".join(problems)


def test_every_rule_has_its_mutants() -> None:
    found = by_rule(mutants())
    few = {rule: len(its) for rule, its in found.items() if len(its) < FEWEST and rule not in OTHERWISE}
    assert not few
    assert not [rule for rule in OTHERWISE if len(found[rule]) >= FEWEST], "no exception is needed for these"


def test_no_two_mutants_are_the_same() -> None:
    changes = [(mutant.before, mutant.after) for mutant in mutants()]
    assert len(set(changes)) == len(changes)


SOURCE = "def ask(pin):\n    if pin:\n        check(pin)\n        count()\n    return pin\n"
LIST = """\
# What would be wrong with it.

@@ S2 P36: Nothing is counted.
     check(pin)
-    count()
@@ K6 in ask.py: Every PIN is right.
- if pin:
-     check(pin)
+ if not pin:
+     check(pin)
"""


def folder_with(tmp_path: Path, text: str, *names: str) -> Path:
    (tmp_path / "src/keyfob").mkdir(parents=True)
    for name in names:
        (tmp_path / "src/keyfob" / name).write_text(text)
    return tmp_path


def test_a_mutant_is_put_in_at_the_depth_of_its_place(tmp_path: Path) -> None:
    there = Sources(folder_with(tmp_path, SOURCE, "ask.py"))
    (tmp_path / "list.diff").write_text(LIST)
    one, other = read(tmp_path / "list.diff")
    assert (one.rules, one.breaks, one.place) == (("S2", "P36"), "Nothing is counted.", "list.diff:3")
    assert there.mutated(one) == ("ask.py", SOURCE.replace("        count()\n", ""))
    assert there.mutated(other) == ("ask.py", SOURCE.replace("if pin", "if not pin"))


@pytest.mark.parametrize("names", [(), ("ask.py", "again.py")])
def test_a_mutant_without_one_place_is_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    there = Sources(folder_with(tmp_path, SOURCE, *names))
    (tmp_path / "list.diff").write_text(LIST)
    one, other = read(tmp_path / "list.diff")
    with pytest.raises(MutantError, match=r"list.diff:3: .*(nowhere|again.py:3, ask.py:3)"):
        there.mutated(one)
    if names:
        assert there.mutated(other)[0] == "ask.py"


@pytest.mark.parametrize("text", ["@@ S2 nothing\n-a\n", "@@ S2: Nothing.\n a\n", "@@ S2: Nothing.\n+a\n", "a\n"])
def test_a_list_that_makes_no_sense_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.diff").write_text(text)
    with pytest.raises(MutantError, match=r"list\.diff:1"):
        read(tmp_path / "list.diff")
