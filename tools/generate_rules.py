"""Write docs/rules.md from the catalogue (keyfob.nss.rules) and from the tests that carry @pytest.mark.rule.

The steps of the demo count too: each names its rules and is a test of tests/interop/nss/test_nss_tools.py.

    python tools/generate_rules.py            writes the page
    python tools/generate_rules.py --check    exits 1 when the page is stale

A rule without a test, a marker that names no rule, and a marked test without a docstring are errors. The first line of
a test's docstring is what the page says that keyfob does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "rules.md"
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from keyfob.nss.rules import ALL, GROUPS, Rule, group  # noqa: E402  (the path must be known first)
from tests.mutants.catalogue import by_rule, mutants  # noqa: E402

# Kinds of proof by where the test lies: the first prefix that fits.
PROOFS = (
    ("demo/steps/", "NSS's tools"),
    ("tests/interop/nss/", "NSS's tools"),
    ("tests/interop/browsers/", "Firefox, Thunderbird, Chromium"),
    ("tests/interop/test_firefox", "Firefox, Thunderbird, Chromium"),
    ("tests/interop/test_thunderbird", "Firefox, Thunderbird, Chromium"),
    ("tests/interop/test_chromium", "Firefox, Thunderbird, Chromium"),
    ("tests/interop/", "other programs"),
    ("tests/robustness/", "C ABI, under strain"),
    ("tests/rules/", "C ABI, as NSS calls"),
    ("tests/functional/", "C ABI"),
    ("tests/abi/", "C ABI"),
    ("tests/", "unit"),
)
TODAY = {
    "same": "NSS still does so",
    "changed": "NSS does it differently today",
    "gone": "no longer true",
    "wrong": "never was true",
}
# For the table of differences: the test whose sentence says most about the pitfall, where that is not to be guessed.
MOST_TELLING = {
    "P1": "test_an_rsa_key_that_nss_generated",
    "P2": "test_a_tls_server_copies_its_key_and_the_copy",
    "P3": "test_a_bare_certificate_completes_itself",
    "P5": "test_hash_and_sign_mechanisms_are_not_advertised_beside_keys_that_ask",
    "P6": "test_nss_sets_the_first_pin_of_a_token_that_nobody_made",
    "P8": "test_the_interface_that_nss_asks_for",
    "P10": "test_no_slot_is_disabled",
    "P11": "test_a_login_counts_for_every_session",
}
SEVERITY = {
    "A": "the token is unusable or a usual task fails",
    "B": "one feature fails",
    "C": "an annoyance",
}


class RulesError(Exception):
    """The catalogue and the tests do not fit together; the text has one problem a line."""


@dataclass(frozen=True)
class Test:
    """A marked test function, or a step of the demo: `path` from the root, `says` what keyfob does, in one line."""

    path: str
    line: int
    name: str
    says: str
    rules: tuple[str, ...]

    @property
    def proof(self) -> str:
        return next(kind for prefix, kind in PROOFS if self.path.startswith(prefix))


def ids_of(mark: ast.expr) -> tuple[str, ...]:
    """The IDs of a `pytest.mark.rule("G1", "P9")`; empty for any other expression."""
    if not isinstance(mark, ast.Call) or not ast.unparse(mark.func).endswith("mark.rule"):
        return ()
    return tuple(argument.value for argument in mark.args if isinstance(argument, ast.Constant))  # type: ignore[misc]


def marks_of_module(tree: ast.Module) -> tuple[str, ...]:
    """The IDs of a module-level `pytestmark`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets):
            marks = node.value.elts if isinstance(node.value, (ast.List, ast.Tuple)) else [node.value]
            return tuple(each for mark in marks for each in ids_of(mark))
    return ()


def marked_tests(folder: Path = ROOT / "tests") -> Iterator[Test]:
    """Every test function with a rule, in the order of files and lines."""
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_module = marks_of_module(tree)
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or not node.name.startswith("test_"):
                continue
            rules = (*of_module, *(each for mark in node.decorator_list for each in ids_of(mark)))
            if rules:
                says = (ast.get_docstring(node) or "").split("\n")[0].strip()
                where = path.relative_to(folder.parent).as_posix()
                yield Test(where, node.lineno, node.name, says, tuple(dict.fromkeys(rules)))


def demo_steps(folder: Path = ROOT / "demo" / "steps") -> Iterator[Test]:
    """Every step of the demo: `@steps.step("name", "sentence", rules="§4 O6 P3")`; sections are not rules."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for step in node.decorator_list:
                if isinstance(step, ast.Call) and ast.unparse(step.func) == "steps.step":
                    name, says = (ast.literal_eval(argument) for argument in step.args)
                    named = next(ast.literal_eval(word.value) for word in step.keywords if word.arg == "rules")
                    rules = tuple(each for each in named.split() if not each.startswith("§"))
                    where = path.relative_to(folder.parents[1]).as_posix()
                    yield Test(where, node.lineno, name, says, rules)


def proofs(tests: list[Test]) -> dict[str, list[Test]]:
    """rule ID -> its tests; RulesError when something is missing or unknown."""
    found: dict[str, list[Test]] = {each.id: [] for each in ALL}
    problems = []
    for test in tests:
        if not test.says:
            problems.append(f"{test.path}:{test.line}: {test.name} has a rule and no docstring")
        for rule_id in test.rules:
            if rule_id in found:
                found[rule_id].append(test)
            else:
                problems.append(f"{test.path}:{test.line}: {test.name} names {rule_id}, which is no rule")
    problems.extend(f"{rule_id}: no test proves it" for rule_id, its in found.items() if not its)
    if problems:
        raise RulesError("\n".join(problems))
    return found


# The page


def sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def links(tests: list[Test]) -> str:
    return ", ".join(f"[{test.name}](../{test.path})" for test in tests)


def kinds_of(tests: list[Test]) -> list[str]:
    order = list(dict.fromkeys(kind for _, kind in PROOFS))
    return sorted({test.proof for test in tests}, key=order.index)


def does(tests: list[Test]) -> list[tuple[str, list[Test]]]:
    """What keyfob does, sentence by sentence, with the tests that say so."""
    by_sentence: dict[str, list[Test]] = {}
    for test in tests:
        by_sentence.setdefault(sentence(test.says), []).append(test)
    return list(by_sentence.items())


def section(rule: Rule, tests: list[Test], faults: int) -> list[str]:
    lines = [f'### <a id="{rule.id.lower()}"></a>{rule.id}: {rule.title}', ""]
    if rule.severity:
        lines.append(f"- **Pitfall** ({rule.severity}: {SEVERITY[rule.severity]}): {rule.statement}")
    else:
        lines.append(f"- **The guide:** {rule.statement} *({TODAY[rule.today or 'same']}.)*")
    lines.append(f"- **NSS today:** {rule.nss}")
    lines.append(f"- **It expects:** {rule.expects}")
    lines.append(f"- **Otherwise:** {rule.user}")
    lines.append("- **keyfob:**")
    lines.extend(f"  - {text} ({links(its)})" for text, its in does(tests))
    lines.append(f"- **Proved by:** {'; '.join(kinds_of(tests))}; tried with {faults} faults in keyfob's own source")
    if rule.unchecked:
        lines.append(f"- **Not for `keyfob check`:** {rule.unchecked}")
    read = ", ".join(f"`{where}`" for where in rule.where)
    standard = f"; the standard: {rule.standard}" if rule.standard else ""
    lines.append(f"- **To read:** NSS {read}{standard}")
    return [*lines, ""]


def summary(found: dict[str, list[Test]]) -> list[str]:
    columns = list(dict.fromkeys(kind for _, kind in PROOFS))
    rows = {
        letters: [
            sum(any(test.proof == kind for test in found[each.id]) for each in group(letters)) for kind in columns
        ]
        for letters in GROUPS
    }
    used = [place for place in range(len(columns)) if any(row[place] for row in rows.values())]
    lines = [f"| Group | Rules | {' | '.join(columns[place] for place in used)} |", f"|---|---{'|---' * len(used)}|"]
    for letters, name in GROUPS.items():
        counts = " | ".join(str(rows[letters][place] or "") for place in used)
        lines.append(f"| [{letters}: {name}](#{letters.lower()}) | {len(group(letters))} | {counts} |")
    totals = " | ".join(str(sum(row[place] for row in rows.values())) for place in used)
    return [*lines, f"| **All** | **{len(ALL)}** | {totals} |", ""]


def today_table() -> list[str]:
    changed = [each for each in ALL if each.today not in (None, "same")]
    lines = ["| Rule | The guide | NSS today |", "|---|---|---|"]
    lines.extend(f"| [{each.id}](#{each.id.lower()}) | {each.statement} | {each.nss} |" for each in changed)
    return [*lines, ""]


def most_telling(rule_id: str, tests: list[Test]) -> str:
    """One sentence for a table: that of MOST_TELLING, else of the rules' own tests that which is most about this."""
    if rule_id in MOST_TELLING:
        named = [test.says for test in tests if test.name == MOST_TELLING[rule_id]]
        if not named:
            raise RulesError(f"MOST_TELLING: {MOST_TELLING[rule_id]} is no test of {rule_id}")
        return sentence(named[0])
    own = [test for test in tests if test.path.startswith("tests/rules/")] or tests
    return sentence(min(own, key=lambda test: (test.rules.index(rule_id), len(test.rules))).says)


def differences(found: dict[str, list[Test]]) -> list[str]:
    lines = ["| Rule | On many tokens | keyfob |", "|---|---|---|"]
    lines.extend(
        f"| [{each.id}](#{each.id.lower()}) | {each.statement} | {most_telling(each.id, found[each.id])} |"
        for each in group("P")
        if each.severity == "A"
    )
    return [*lines, ""]


INTRODUCTION = """\
Netscape's guide "Implementing PKCS #11 for NSS" of 1998 is still the only one. These are its statements, each in our
words, with what NSS (3.87 to 3.124) does at that point today, and the pitfalls that the guide does not know: {rules}
rules, proved by {tests} tests, which were tried in turn: `make mutants` puts {faults} small faults into keyfob, and a
test of each rule that one breaks has to fail. Writing a module of your own? Read *It expects* and *Otherwise*;
`keyfob check MODULE` tests yours.
"""
KEY = """\
The columns count the rules that are proved in that way; most are proved in several. *C ABI, as NSS calls* replays NSS's
own sequences of calls on the built library; *NSS's tools* are certutil, modutil, pk12util, cmsutil and the TLS tools
themselves. *To read* names functions of NSS; folders are below its `lib/` unless they start with `cmd/`.
"""


def page(found: dict[str, list[Test]]) -> str:
    """The text of docs/rules.md."""
    tests = {(test.path, test.name) for its in found.values() for test in its}
    tried = mutants()
    faults = by_rule(tried)
    lines = [
        "<!-- Written by tools/generate_rules.py from src/keyfob/nss/rules and from the tests: do not edit. -->",
        "",
        "# What NSS expects of a PKCS #11 module, and how keyfob does it",
        "",
        INTRODUCTION.format(rules=len(ALL), tests=len(tests), faults=len(tried)),
        *summary(found),
        KEY,
        "## What is different here from other tokens",
        "",
        "The pitfalls on which a usual task fails, as they are found in tokens in use, and what keyfob does instead:",
        "",
        *differences(found),
        "## Where NSS has moved away from the guide",
        "",
        *today_table(),
    ]
    for letters, name in GROUPS.items():
        lines += [f'## <a id="{letters.lower()}"></a>{name}', ""]
        for each in group(letters):
            lines += section(each, found[each.id], len(faults[each.id]))
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    try:
        text = page(proofs([*marked_tests(), *demo_steps()]))
    except RulesError as problem:
        print(f"generate_rules: {problem}", file=sys.stderr)
        return 1
    if "--check" in arguments:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"stale: {PAGE.relative_to(ROOT)}; run tools/generate_rules.py", file=sys.stderr)
            return 1
        return 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
