"""The report for a terminal: what NSS can do with the module first, then the failures in full, warnings in short.

Readable at 80 columns and without colour: every verdict is a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keyfob.nss.jobs import JobResult, Outcome, costs_every_job, judge
from keyfob.nss.model import Ended, Finding, Report, RuleResult, ScenarioResult, Verdict
from keyfob.nss.report.wording import calls, same_for_all, verdict, worst_first

STYLES = {
    Outcome.WORKS: "green",
    Outcome.LOSS: "yellow",
    Outcome.NOT: "bold red",
    Outcome.UNKNOWN: "dim",
}
LOOKS = {Verdict.FAIL: "bold red", Verdict.WARN: "bold yellow", Verdict.PASS: "bold green"}
MOST_FINDINGS = 3
MOST_CALLS = 2
"""What of a broken rule stands here; --json and --html have it all."""
MOST_LINES, LONGEST_LINE = 5, 300
"""What of a module's own words stands here."""


def show(report: Report, console: Console) -> None:
    """Print the whole report."""
    results = report.results()
    console.print()
    jobs = judge(report)
    worst, sentence = verdict(report, results.values(), jobs)
    console.print(_head(report))
    console.print(Text(f"{printable(sentence)}\n", style=LOOKS[worst]))
    if "kinds" in report.facts:
        console.print(_kinds(report.facts["kinds"]))
    if "not loaded" not in report.facts and not same_for_all(jobs):
        console.print(_jobs(jobs))
    every = [results[name].rule for name in costs_every_job(report)]
    if every and "not loaded" not in report.facts:
        console.print(Text("Whatever the job, a user may meet with", style="bold"))
        console.print(_grid([(f"  {rule.id}", rule.title) for rule in every]))
        console.print()
    by_verdict = {verdict: [r for r in results.values() if r.verdict == verdict] for verdict in Verdict}
    _failures(report, by_verdict[Verdict.FAIL], console)
    _warnings(by_verdict[Verdict.WARN], console)
    _rest(by_verdict, console)
    _said(report.scenarios, console)
    _troubles(report.scenarios, console)
    console.print(_last_line(by_verdict, report))


def _head(report: Report) -> RenderableType:
    info = report.facts.get("info", {})
    lines = Text()
    lines.append(f"{printable(report.module)}\n", style="bold")
    if info:
        named = f"{info['description']} {info['version']}, {info['manufacturer']}, PKCS #11 {info['cryptoki']}"
        lines.append(f"{printable(named)}, by {report.facts.get('entry point', '?')}\n")
    for slot in report.facts.get("slots", ()):
        token = slot["token"]
        named = f"token {token['label']!r}" if token and token["label"] else "a token without a name"
        what = named if token else "no token"
        lines.append(printable(f"slot {slot['id']}: {what}, {slot['description']}"))
        if slot["disabled"]:
            lines.append(printable(f" - NSS does not use it: {slot['disabled']}"), style="yellow")
        lines.append("\n")
    return lines


def _kinds(kinds: list[dict[str, Any]]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for kind in kinds:
        word = Text("  yes", style="green") if kind["usable"] else Text("  no", style="red")
        grid.add_row(word, f"{kind['name']}: {kind['meaning'] if kind['usable'] else _lacking(kind['lacks'])}")
    return Group(Text("NSS can use it as", style="bold"), grid, Text())


def _lacking(lacks: list[str]) -> str:
    return f"lacks {'; '.join(lacks)}"


def _grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and texts that wrap beside them."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(name, Text(printable(text)))
    return grid


def _jobs(jobs: list[JobResult]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Jobs", title_justify="left", title_style="bold")
    table.add_column("Job", overflow="fold")
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Because", overflow="fold")
    for result in jobs:
        why = ", ".join(result.because)
        if result.lacks and result.outcome != Outcome.WORKS:
            why = _shortened(" or ".join(result.lacks) if result.outcome == Outcome.NOT else result.lacks[0])
            if result.outcome == Outcome.NOT:
                why = f"lacks {why}"
        table.add_row(result.job.title, Text(str(result.outcome), style=STYLES[result.outcome]), printable(why))
    return table


def _shortened(text: str) -> str:
    return text if len(text) <= 90 else text[:87] + "..."


def _failures(report: Report, failed: list[RuleResult], console: Console) -> None:
    if not failed:
        return
    console.print(Text("Failures", style="bold red"))
    for result in worst_first(failed):
        title = Text(f"{result.rule.id}  {result.rule.title}", style="bold")
        if result.rule.severity:
            title.append(f"  (severity {result.rule.severity})", style="not bold")
        console.print(Group(title, Padding(_failure(report, result), (0, 0, 0, 2))))
        console.print()


def _failure(report: Report, result: RuleResult) -> RenderableType:
    """What was found, each with its calls, then what is true of all of it."""
    rule = result.rule
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")

    def row(head: str, text: str) -> None:
        grid.add_row(head, Text(printable(text)))

    found = [finding for finding in result.findings if finding.verdict == Verdict.FAIL]
    # The same in several scenarios is said once.
    different = list({finding.saw: finding for finding in reversed(found)}.values())[::-1]
    for finding in different[:MOST_FINDINGS]:
        row("Found", finding.saw)
        for call in calls(report, finding, MOST_CALLS, brief=True):
            row("Call", call)
        if finding.expects:
            row("Right", finding.expects)
    if len(different) > MOST_FINDINGS:
        row("", f"... and {len(different) - MOST_FINDINGS} more (--html and --json have them)")
    row("NSS", _texts(found, "nss", rule.nss))
    row("Expected", rule.expects)
    row("User sees", _texts(found, "user", rule.user))
    row("In NSS", ", ".join(rule.where))
    row("Scenario", ", ".join(dict.fromkeys(finding.scenario for finding in found)))
    return grid


def _texts(found: list[Finding], field: str, usual: str) -> str:
    """What is true of these cases: a finding that is narrower than its rule brings a text of its own."""
    return " ".join(dict.fromkeys(getattr(finding, field) or usual for finding in found))


def _warnings(warned: list[RuleResult], console: Console) -> None:
    if not warned:
        return
    console.print(Text("Warnings: it works, but a user will notice", style="bold yellow"))
    console.print(_grid((f"  {result.rule.id}", result.reason) for result in warned))
    console.print()


def _rest(by_verdict: dict[Verdict, list[RuleResult]], console: Console) -> None:
    reasons = Counter(result.reason for result in by_verdict[Verdict.NOT_TESTED])
    if not reasons:
        return
    console.print(Text("Not tested", style="bold"))
    rows = []
    for reason, number in reasons.most_common():
        ids = [result.rule.id for result in by_verdict[Verdict.NOT_TESTED] if result.reason == reason]
        shown = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")
        rows.append((f"  {number:3}", f"{reason} ({shown})"))
    console.print(_grid(rows))
    console.print()


def _said(scenarios: list[ScenarioResult], console: Console) -> None:
    """What the module wrote on standard error: often the reason for what its answers do not explain."""
    lines = Counter(line for scenario in scenarios for line in scenario.stderr.splitlines() if line.strip())
    if not lines:
        return
    console.print(Text("The module wrote on standard error", style="bold"))
    rows = [(f"  {number:3} x", line[:LONGEST_LINE]) for line, number in lines.most_common(MOST_LINES)]
    console.print(_grid(rows))
    if len(lines) > MOST_LINES:
        console.print(f"        ... and {len(lines) - MOST_LINES} other lines (--html and --json have them)")
    console.print()


def _troubles(scenarios: list[ScenarioResult], console: Console) -> None:
    """What kept the checker itself from working: never silent."""
    for scenario in scenarios:
        if scenario.ended == Ended.FAULT:
            console.print(Text(f"A fault of keyfob check itself in the scenario {scenario.name!r}:", style="bold red"))
            console.print(Text(scenario.detail))


def _last_line(by_verdict: dict[Verdict, list[RuleResult]], report: Report) -> RenderableType:
    counted = ", ".join(f"{len(found)} {_counted(verdict)}" for verdict, found in by_verdict.items() if found)
    line = Text(f"{counted} ({report.seconds:.1f} s)", style="bold")
    left = report.facts.get("left behind")
    if left:
        line.append(f"\nLeft on the token: {printable(', '.join(left))}", style="bold red")
    return line


def _counted(verdict: Verdict) -> str:
    return {Verdict.FAIL: "failed", Verdict.WARN: "with warnings", Verdict.PASS: "passed"}.get(verdict, str(verdict))


def printable(text: str) -> str:
    """Names come from any module: what could steer a terminal is shown as `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)
