"""The lists of mutants, and where in the source each applies.

A list is written like a diff:

    @@ S2 P36: A slot whose token's file is gone is dropped at the next listing.
         for slot_id in on_shelf:
    -            known = self.tokens.get(slot_id)
    +            known = None

A mutant names the rules that it breaks and says how. Its lines with a blank or a minus in front must stand somewhere in
the sources of keyfob exactly once, one below the other, at whatever depth, so no file is named that could be renamed;
`in FILE` behind the rules chooses one where the same lines are in several. Lines that begin with # are comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from keyfob.nss.rules import ALL

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).with_name("lists")
PACKAGE = "src/keyfob"
FEWEST = 2
"""As many mutants each rule has at least."""
OTHERWISE: dict[str, str] = {}
"""Rules of which keyfob's source has no half that could be broken, and why."""

HEAD = re.compile(r"@@ (?P<rules>[A-Z]+[0-9]+(?: [A-Z]+[0-9]+)*)(?: in (?P<file>\S+))?: (?P<breaks>.+)")


class MutantError(Exception):
    """A list that cannot be read, or a mutant that does not apply."""


@dataclass(frozen=True)
class Mutant:
    """`rules` it breaks, how (`breaks`, a sentence), and the lines `before` and `after`; `place`: the list and line."""

    rules: tuple[str, ...]
    breaks: str
    file: str | None
    before: tuple[str, ...]
    after: tuple[str, ...]
    place: str


def read(path: Path) -> list[Mutant]:
    """The mutants of one list."""
    found: list[Mutant] = []
    head: re.Match[str] | None = None
    before: list[str] = []
    after: list[str] = []
    place = ""

    def finish() -> None:
        if head is not None:
            if before == after or not before:
                raise MutantError(f"{place}: it changes nothing")
            rules, file, breaks = tuple(head["rules"].split()), head["file"], head["breaks"]
            found.append(Mutant(rules, breaks, file, tuple(before), tuple(after), place))

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("@@"):
            finish()
            place = f"{path.name}:{number}"
            head, before, after = HEAD.fullmatch(line), [], []
            if head is None:
                raise MutantError(f"{place}: not `@@ RULES: what it breaks`")
        elif line[:1] in (" ", "-", "+") and head is not None:
            if line[0] != "+":
                before.append(line[1:])
            if line[0] != "-":
                after.append(line[1:])
        elif line.strip() and not line.startswith("#"):
            raise MutantError(f"{path.name}:{number}: neither a head nor a line of a mutant")
    finish()
    return found


def mutants() -> list[Mutant]:
    """All mutants, in the order of the lists."""
    return [mutant for path in sorted(LISTS.glob("*.diff")) for mutant in read(path)]


def by_rule(chosen: list[Mutant]) -> dict[str, list[Mutant]]:
    """{rule: its mutants}, for every rule; MutantError when a mutant names an unknown one."""
    found: dict[str, list[Mutant]] = {rule.id: [] for rule in ALL}
    for mutant in chosen:
        for rule in mutant.rules:
            if rule not in found:
                raise MutantError(f"{mutant.place}: {rule} is no rule")
            found[rule].append(mutant)
    return found


class Sources:
    """The sources of keyfob in a project folder, line by line."""

    def __init__(self, root: Path = ROOT) -> None:
        self.lines: dict[str, list[str]] = {}
        self._where: dict[str, list[tuple[str, int]]] = {}
        for path in sorted((root / PACKAGE).rglob("*")):
            if path.suffix in (".py", ".c", ".h"):
                file = path.relative_to(root / PACKAGE).as_posix()
                self.lines[file] = path.read_text(encoding="utf-8").splitlines()
                for number, line in enumerate(self.lines[file]):
                    self._where.setdefault(line.strip(), []).append((file, number))

    def find(self, mutant: Mutant) -> tuple[str, int, int]:
        """(file, index of its first line, by how much deeper it is there)."""
        first = mutant.before[0].strip()
        places = self._where.get(first, []) if first else []
        hits = [
            (file, start, deeper)
            for file, start in places
            if mutant.file in (None, file) and (deeper := self._fits(mutant, file, start)) is not None
        ]
        if len(hits) != 1:
            where = ", ".join(f"{file}:{start + 1}" for file, start, _ in hits) or "nowhere"
            raise MutantError(f"{mutant.place}: its lines are to be in one place, and are in {where}: {first}")
        return hits[0]

    def _fits(self, mutant: Mutant, file: str, start: int) -> int | None:
        """By how much deeper the mutant's lines stand there; None where others do."""
        there = self.lines[file][start : start + len(mutant.before)]
        if [line.strip() for line in there] != [line.strip() for line in mutant.before]:
            return None
        deeper = {_indent(one) - _indent(other) for one, other in zip(there, mutant.before, strict=True) if one}
        return deeper.pop() if len(deeper) == 1 else None

    def mutated(self, mutant: Mutant) -> tuple[str, str]:
        """(file, its text with the fault)."""
        file, start, deeper = self.find(mutant)
        lines = self.lines[file]
        after = [_moved(line, deeper) for line in mutant.after]
        return file, "\n".join([*lines[:start], *after, *lines[start + len(mutant.before) :]]) + "\n"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _moved(line: str, deeper: int) -> str:
    if not line.strip():
        return ""
    return " " * deeper + line if deeper >= 0 else line[-deeper:]
