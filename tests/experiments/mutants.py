"""Defects that are put into a copy of keyfob's sources, for the experiments to find."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Mutant(NamedTuple):
    """`source`, below the package, has `after` where `before` stands, which must be in one place."""

    source: str
    before: str
    after: str

    def mutated(self, package: Path) -> str:
        """The source with the defect; ValueError where it no longer applies."""
        text = (package / self.source).read_text()
        if text.count(self.before) != 1:
            raise ValueError(f"{self.source} does not have in one place: {self.before}")
        return text.replace(self.before, self.after)

    def apply(self, package: Path) -> None:
        (package / self.source).write_text(self.mutated(package))


MUTANTS = {
    "without MACs": Mutant(
        "store/integrity.py",
        "from _operator import _compare_digest as same_digest\n",
        "same_digest = lambda one, other: True\n",
    ),
    "without a witness": Mutant(
        "store/witness.py", "found, _status = files.read_kept(self._path(serial), MOST_BYTES)", "return None"
    ),
}
