"""Two reports side by side: which rules and jobs got better or worse, which are new, which are tested no more.

Works on the JSON reports (as_json.py), so that one of them may come from another
machine and another version of keyfob.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from keyfob.nss.jobs import Outcome
from keyfob.nss.model import Verdict
from keyfob.nss.report import as_json
from keyfob.nss.report.terminal import printable

SCHEMA = "keyfob-check-compare"
VERSION = 1
Document = dict[str, Any]

# From bad to good. What is in neither says nothing of the module: it was not tested, or does not concern it.
RULES_BY_WORTH: tuple[str, ...] = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
JOBS_BY_WORTH: tuple[str, ...] = (Outcome.NOT, Outcome.LOSS, Outcome.WORKS)


class CannotCompare(Exception):  # noqa: N818 - told to the user, not a fault of the program
    """A file is no report of `keyfob check`, or one of a version that this program does not know."""


class Change(StrEnum):
    """`new`: it was not tested before; `gone`: it is not tested any more."""

    WORSE = "worse"
    BETTER = "better"
    NEW = "new"
    GONE = "gone"


NOT_THERE = "not in the report"
HEADS = {
    Change.WORSE: ("Worse", "bold red"),
    Change.BETTER: ("Better", "bold green"),
    Change.NEW: ("Tested only now", "bold"),
    Change.GONE: ("Not tested any more", "bold yellow"),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule or job whose verdict or outcome is another one; "" stands for "it is not in that report"."""

    kind: str
    id: str
    title: str
    before: str
    after: str
    change: Change
    saw: str = ""

    def to_json(self) -> Document:
        return {
            "kind": self.kind,
            "id": self.id,
            "title": self.title,
            "before": self.before,
            "after": self.after,
            "change": str(self.change),
            "saw": self.saw,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that changed between two reports; `same` counts the rules and jobs that did not."""

    before: Document
    after: Document
    differences: list[Difference]
    same: int

    @property
    def worse(self) -> bool:
        return any(each.change == Change.WORSE for each in self.differences)

    def of(self, change: Change) -> list[Difference]:
        return [each for each in self.differences if each.change == change]


def load(path: str) -> Document:
    """A report from a file; CannotCompare with the reason when it is none."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError) as problem:
        raise CannotCompare(f"{path} cannot be read as JSON: {problem}") from None
    if not isinstance(document, dict) or document.get("schema") != as_json.SCHEMA:
        raise CannotCompare(f"{path} is no report of `keyfob check --json`")
    if document.get("version") != as_json.VERSION:
        raise CannotCompare(f"{path} is of version {document.get('version')}; this keyfob knows {as_json.VERSION}")
    return document


def compare(before: Document, after: Document) -> Comparison:
    """What changed from the one report to the other, rules first, in the order of the second."""
    rules = _differences("rule", _by("id", before["rules"]), _by("id", after["rules"]), "verdict", RULES_BY_WORTH)
    jobs = _differences("job", _by("job", before["jobs"]), _by("job", after["jobs"]), "outcome", JOBS_BY_WORTH)
    every = {row["id"] for row in (*before["rules"], *after["rules"])}
    tasks = {row["job"] for row in (*before["jobs"], *after["jobs"])}
    return Comparison(before, after, [*rules, *jobs], len(every) + len(tasks) - len(rules) - len(jobs))


def _by(key: str, rows: Iterable[Document]) -> dict[str, Document]:
    return {row[key]: row for row in rows}


def _differences(
    kind: str, before: dict[str, Document], after: dict[str, Document], key: str, worth: tuple[str, ...]
) -> list[Difference]:
    found = []
    for name in (*after, *(name for name in before if name not in after)):
        old, new = before.get(name), after.get(name)
        was, now = (row[key] if row else "" for row in (old, new))
        change = _change(was, now, worth)
        if change is not None:
            row = new or old or {}
            found.append(Difference(kind, name, row["title"], was, now, change, _saw(row)))
    return found


def _change(was: str, now: str, worth: tuple[str, ...]) -> Change | None:
    """None where nothing changed, or where neither run has tested it."""
    if was in worth and now in worth:
        difference = worth.index(now) - worth.index(was)
        return None if difference == 0 else Change.BETTER if difference > 0 else Change.WORSE
    if now in worth:
        return Change.NEW
    return Change.GONE if was in worth else None


def _saw(row: Document) -> str:
    """The first finding of a rule's verdict; the rules and the lacks that decided a job."""
    if "findings" in row:
        return next((str(f["saw"]) for f in row["findings"] if f["verdict"] == row["verdict"]), "")
    return ", ".join([*row["because"], *row["lacks"]])


def document(found: Comparison) -> Document:
    """The comparison, JSON-ready: docs/check.md has the schema."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "before": _origin(found.before),
        "after": _origin(found.after),
        "verdict": "worse" if found.worse else "better" if found.of(Change.BETTER) else "same",
        "counts": {**{str(change): len(found.of(change)) for change in Change}, "same": found.same},
        "differences": [each.to_json() for each in found.differences],
    }


def _origin(report: Document) -> Document:
    return {key: report[key] for key in ("module", "started", "keyfob", "options", "verdict", "counts")}


def text(found: Comparison) -> str:
    return json.dumps(document(found), indent=1, ensure_ascii=False) + "\n"


def show(found: Comparison, console: Console) -> None:
    """Print what changed, the worst first."""
    console.print()
    for name, report in (("Before", found.before), ("After", found.after)):
        console.print(Text(f"{name:6}  {printable(report['module'])}"))
        console.print(Text(f"        {report['started']}, keyfob {report['keyfob']}"))
    other = _other_options(found)
    if other:
        console.print(Text(f"The two runs were not allowed the same: {other}", style="yellow"))
    console.print()
    for change, (head, style) in HEADS.items():
        differences = found.of(change)
        if differences:
            console.print(Text(head, style=style))
            console.print(_lines(differences))
            console.print()
    counted = [
        f"{len(found.of(change))} {head.lower()}" for change, (head, _style) in HEADS.items() if found.of(change)
    ]
    console.print(Text(", ".join([*counted, f"{found.same} unchanged"]), style="bold"))


def _other_options(found: Comparison) -> str:
    """`write: yes, then no`: what may explain why something is tested only in one of them."""
    words = {True: "yes", False: "no", None: "none"}
    before, after = (report["options"] for report in (found.before, found.after))
    changed = [key for key in after if key not in ("slot", "time_limit") and before.get(key) != after[key]]
    return printable(
        "; ".join(f"{key}: {_word(before.get(key), words)}, then {_word(after[key], words)}" for key in changed)
    )


def _word(value: Any, words: dict[Any, str]) -> str:
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _lines(differences: list[Difference]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for each in differences:
        line = Text(each.title)
        line.append(f"\n{each.before or NOT_THERE} -> {each.after or NOT_THERE}", style="bold")
        if each.saw and each.change != Change.BETTER:
            line.append(f": {printable(each.saw)}")
        grid.add_row(f"  {each.id if each.kind == 'rule' else 'job'}", line)
    return grid
