"""Tell a person what happened: a few lines for each step, a verdict at the end; and the same as JSON for a program.

The words carry the meaning, colour only helps: the account reads the same in a pipe, and fits 80 columns.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from rich.text import Text

from demo.steps import CHAPTERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from demo.nss import Outcome
    from demo.stage import Result, Stage
    from demo.steps import Step

STYLES = {"ok": "green", "FAILED": "bold red", "not run": "yellow", "known": "yellow"}
MARGIN = " " * 10
TAIL = 25  # lines of output shown of a tool that failed


def verdict_on(result: Result, stage: Stage) -> str:
    """Give the word for a step's result: "known" is a failure that CLIENTS.md foretells of this kind of token."""
    if result.state == "passed":
        return "ok"
    if result.step.name in stage.token.limits:
        return "known"
    return "FAILED" if result.state == "failed" else "not run"


class Account:
    """Writes the account of one run to ``console``."""

    def __init__(self, console: Console, stage: Stage, *, again: str, brief: bool) -> None:
        """Take where to write, and ``again``: the command that runs this demo, for the hint how to repeat a step."""
        self.console = console
        self.stage = stage
        self.again = again
        self.brief = brief
        self.chapter = ""

    def running(self, step: Step) -> contextlib.AbstractContextManager[object]:
        """Show on a terminal which step is at work."""
        if not self.console.is_terminal:
            return contextlib.nullcontext()
        return self.console.status(Text(step.sentence, style="dim"))

    def tell(self, result: Result) -> None:
        """Write the lines of one step."""
        if result.step.chapter != self.chapter:
            self.chapter = result.step.chapter
            self._line(Text(""))
            self._line(Text(CHAPTERS[self.chapter], style="bold"))
        word = verdict_on(result, self.stage)
        head = Text.assemble((f"{word:<8}", STYLES[word]), "  ", result.step.sentence)
        time_taken = f"({result.failure})" if word == "not run" else f"{result.seconds:.2f} s"
        padding = max(1, self.console.width - head.cell_len - len(time_taken))
        self._line(head.append(" " * padding).append(time_taken, style="dim"))
        if word == "known":
            self._indented(Text(self.stage.token.limits[result.step.name], style="yellow"))
        elif word == "FAILED":
            self._tell_failure(result)
        elif word == "ok" and not self.brief:
            for outcome in principal(result)[:1]:
                self._line(Text(f"{MARGIN}$ {short(outcome, self.stage)}", style="cyan"))
            self._indented(Text.assemble(result.evidence, (f"  [{' '.join(result.step.rules)}]", "dim")))

    def _tell_failure(self, result: Result) -> None:
        """Write why a step failed, what the tool (and a server beside it) said, and how to repeat the step."""
        self._line(Text(MARGIN + result.failure, style="red"), whole=True)
        ran = result.outcomes
        guilty = ran.index(result.culprit) if result.culprit in ran else max(0, len(ran) - 1)
        for outcome in ran[guilty:]:
            self._line(Text(f"{MARGIN}$ {outcome.shown(self.stage.hidden)}", style="cyan"), whole=True)
            for line in [line for line in outcome.output.splitlines() if line.strip()][-TAIL:]:
                self._line(Text(f"{MARGIN}| {masked(line, self.stage.hidden)}", style="dim"), whole=True)
        self._line(Text(f"{MARGIN}NSS.md: {' '.join(result.step.rules)}"))
        self._line(Text(f"{MARGIN}again: {self.again} --keep --only {result.step.name}"), whole=True)

    def conclude(self, results: list[Result], seconds: float) -> bool:
        """Write the verdict; gives whether all is as it should be."""
        words = [verdict_on(result, self.stage) for result in results]
        passed, known = words.count("ok"), words.count("known")
        failed = [result.step.name for result, word in zip(results, words, strict=True) if word == "FAILED"]
        skipped = words.count("not run")
        title = self.stage.token.title
        self._line(Text(""))
        if failed or skipped:
            text = f"FAILED: {len(failed)} of {len(results)} steps failed with {title}, {skipped} were not run"
            self._line(Text(f"{text} ({seconds:.0f} s).", style="bold red"), whole=True)
            self._line(Text(", ".join(failed)), whole=True)
        elif known:
            text = f"AS EXPECTED: {passed} of {len(results)} steps passed with {title}, in {seconds:.0f} s; "
            text += f"the other {known} are known limits of it."
            self._line(Text(text, style="bold yellow"), whole=True)
        else:
            text = f"PASSED: all {passed} steps, with {title}, in {seconds:.0f} s."
            self._line(Text(text, style="bold green"), whole=True)
        return not failed and not skipped

    def _indented(self, text: Text) -> None:
        """Write a text under its step, in as many lines as it needs."""
        for line in text.wrap(self.console, self.console.width - len(MARGIN)):
            line.rstrip()
            self._line(Text(MARGIN).append_text(line))

    def _line(self, text: Text, *, whole: bool = False) -> None:
        """Write one line, cut at the width of the terminal unless it is to be read whole."""
        self.console.print(text, no_wrap=not whole, overflow="fold" if whole else "ellipsis", highlight=False)


def short(outcome: Outcome, stage: Stage) -> str:
    """Give the command without what every command has: database, password file, module, log-in."""
    constant = {"-d", "-dbdir", "-f", "-z", "--module", "--token-label", "--pin"}
    first, *words = outcome.shown(stage.hidden).split(" ")
    kept: list[str] = []
    for previous, word in zip([first, *words], words, strict=False):
        boring = word in constant or previous in constant or word == "--login"
        if not boring:
            kept.append(word)
    return " ".join([first, *kept])


def masked(line: str, hidden: Mapping[str, str]) -> str:
    """Give a line of a tool's output without the secrets that it may repeat."""
    for secret, name in hidden.items():
        line = line.replace(secret, f"${name}")
    return line


def principal(result: Result) -> list[Outcome]:
    """Give the commands that show best what the step did."""
    return [outcome for outcome in result.outcomes if outcome.principal] or result.outcomes


def write_json(path: Path, stage: Stage, results: list[Result], seconds: float, *, passed: bool) -> None:
    """Write the results for a program to read."""
    record = {
        "token": stage.token.kind,
        "module": stage.token.module,
        "passed": passed,
        "seconds": round(seconds, 3),
        "steps": [
            {
                "name": result.step.name,
                "chapter": result.step.chapter,
                "sentence": result.step.sentence,
                "rules": list(result.step.rules),
                "result": verdict_on(result, stage),
                "seconds": round(result.seconds, 3),
                "evidence": result.evidence,
                "failure": result.failure,
                "commands": [
                    {"command": run.shown(stage.hidden), "exit_code": run.code, "seconds": round(run.seconds, 3)}
                    for run in result.outcomes
                ],
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
