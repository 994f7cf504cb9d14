"""Try the mutants: each in a copy of keyfob, with the tests of its rule alone, until one fails.

    python -m tests.mutants [--rules K6,S2] [--share 3/20] [--place NAME] [--jobs 2]

First all these tests must pass on a copy without any fault. Then a mutant for which no test of the rule fails has
survived: the table says SURVIVED, and the exit status is 1. Tests on the C ABI come first; those that need other
programs (NSS's tools) run only for what no other has caught. A test that still runs after LIMIT seconds has caught its
mutant too: it hangs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

from keyfob.nss.rules import ALL
from tests.mutants.catalogue import PACKAGE, ROOT, Mutant, Sources, by_rule, mutants

sys.path.insert(0, str(ROOT / "tools"))
from generate_rules import marked_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 180.0
COPIED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "scripts", "src")
"""What a build needs."""
COMPILED = (".c", ".h", "abi/build.py", "abi/cryptoki.py")
FIRST = ("tests/rules/", "tests/functional/", "tests/token/", "tests/store/", "tests/cli/", "tests/")
"""The order of the tests: those that usually find it, and are quick, come first."""
HERE = "not interop and not long and not firefox"
ELSEWHERE = "interop and not long and not firefox"
PASSED, FAILED, NOTHING = 0, 1, 5
FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Copy:
    """A copy of keyfob, built; a mutant is put into it and taken out again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        self._sources = Sources(folder)

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        file, text = self._sources.mutated(mutant)
        path = self.folder / PACKAGE / file
        before = path.read_text(encoding="utf-8")
        self._write(path, text)
        try:
            yield
        finally:
            self._write(path, before)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):  # Python looks at seconds and sizes alone
            stale.unlink()
        if str(path).endswith(COMPILED):
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
            subprocess.run(build, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def pytest(self, tests: list[str], marks: str, *options: str) -> tuple[int, str]:
        """How the tests ended on this copy; FAILED when they hang."""
        variables = {
            "KEYFOB_MUTATED": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(self.folder / "src"), str(ROOT)]),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / "hypothesis"),
        }
        plugins = ["-p", "tests.mutants.guard", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", *plugins, "-m", marks, *options, *tests],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        try:
            said, _ = process.communicate(timeout=None if "-n" in options else LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the programs that the tests have started, too
            process.communicate()
            return FAILED, f"hangs for {LIMIT:.0f} s"
        return process.returncode, said


@dataclass(frozen=True)
class Trial:
    """A mutant and one of the rules that it breaks."""

    rule: str
    mutant: Mutant


def tests_of(rule: str) -> list[str]:
    """The node IDs of the rule's tests, the likely ones first; the steps of the demo are not among them."""
    found = [test for test in marked_tests() if rule in test.rules]
    found.sort(key=lambda test: next(place for place, prefix in enumerate(FIRST) if test.path.startswith(prefix)))
    return [f"{test.path}::{test.name}" for test in found]


def caught(copy: Copy, trial: Trial) -> str:
    """The test that failed, empty when none did."""
    tests = tests_of(trial.rule)
    code, said = PASSED, ""
    for marks in (HERE, ELSEWHERE):
        with copy.mutated(trial.mutant):
            code, said = copy.pytest(tests, marks, "-x")
        if code not in (PASSED, NOTHING):
            break
    else:
        return ""
    found = FAILURE.search(said)
    # These were not among the tests that had to pass without a mutant.
    if marks == ELSEWHERE and found and copy.pytest([found[1].partition("[")[0]], marks)[0] != PASSED:
        raise RuntimeError(f"{trial.mutant.place}: {found[1]} fails without a mutant, too")
    if code == FAILED:
        return found[1] if found else said.strip().splitlines()[-1]
    if code < 0:
        return f"signal {-code}"
    if found or "Fatal Python error" in said:
        return f"pytest ended with {code}: {found[1] if found else 'Fatal Python error'}"
    raise RuntimeError(f"{trial.mutant.place}: pytest ended with {code}:\n{said[-3000:]}")


def chosen(arguments: argparse.Namespace) -> list[Trial]:
    found = by_rule(mutants())
    rules = [rule.id for rule in ALL]
    if arguments.rules:
        rules = arguments.rules.split(",")
    if arguments.share:
        part, parts = (int(number) for number in arguments.share.split("/"))
        rules = rules[part - 1 :: parts]
    return [Trial(rule, mutant) for rule in rules for mutant in found[rule] if mutant.place.startswith(arguments.place)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--rules", default="", help="only these, separated by commas")
    parser.add_argument("--share", default="", help="3/20: of 20 parts of the rules the third")
    parser.add_argument("--place", default="", help="only those of this list, or of this line of it")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-control", action="store_true", help="do not run the tests on a copy without fault first")
    arguments = parser.parse_args()
    trials = chosen(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keyfob-mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(arguments.jobs):
            place = Path(folder) / str(number)
            place.mkdir()
            copies.put(Copy(place))
        if not arguments.no_control and not _control(copies, trials, arguments.jobs):
            return 1
        survivors = _try_all(copies, trials, arguments.jobs)
    print(f"{len(trials)} mutants, {len(survivors)} survived, {time.monotonic() - started:.0f} s")
    return 1 if survivors else 0


def _control(copies: SimpleQueue[Copy], trials: list[Trial], jobs: int) -> bool:
    """Whether the tests pass on a copy as it is; otherwise they would catch nothing."""
    copy = copies.get()
    tests = list(dict.fromkeys(test for rule in dict.fromkeys(t.rule for t in trials) for test in tests_of(rule)))
    code, said = copy.pytest(tests, HERE, "-n", str(jobs))
    copies.put(copy)
    if code not in (PASSED, NOTHING):
        print(said[-4000:], "The tests fail without any mutant.", sep="\n")
    else:
        print(f"{len(tests)} tests pass without a mutant: {said.strip().splitlines()[-1]}")
    return code in (PASSED, NOTHING)


def _try_all(copies: SimpleQueue[Copy], trials: list[Trial], jobs: int) -> list[Trial]:
    output = Lock()

    def attempt(trial: Trial) -> bool:
        copy = copies.get()
        began = time.monotonic()
        try:
            by = caught(copy, trial)
        finally:
            copies.put(copy)
        with output:
            print(f"{trial.rule:5} {by or 'SURVIVED'} ({time.monotonic() - began:.0f} s)")
            print(f"      {trial.mutant.place}: {trial.mutant.breaks}", flush=True)
        return bool(by)

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(attempt, trials))
    return [trial for trial, right in zip(trials, results, strict=True) if not right]


if __name__ == "__main__":
    sys.exit(main())
