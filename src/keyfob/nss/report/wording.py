"""A run in words: its verdict; a failure with what NSS does, what was called, what was expected, what a user sees."""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyfob.nss.driver.record import call_text
from keyfob.nss.jobs import JobResult, Outcome
from keyfob.nss.model import Finding, Report, RuleResult, Verdict, rule

MOST_CALLS = 4
"""Calls of evidence that are written out; all are in the JSON."""
LONG_HEX = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{9,}(?:\.\.\.)?")
"""Bytes that are shown in hex, and more than eight of them."""
SEVERAL = {
    Outcome.WORKS: "work",
    Outcome.LOSS: "work with loss",
    Outcome.NOT: "do not work",
    Outcome.UNKNOWN: "were not tested",
}


def verdict(report: Report, results: Iterable[RuleResult], jobs: list[JobResult]) -> tuple[Verdict, str]:
    """The answer to what a run is about: the worst verdict of any rule, and a sentence."""
    verdicts = [result.verdict for result in results]
    if "not loaded" in report.facts:
        return Verdict.FAIL, f"NSS does not load the module: {report.facts['not loaded']}."
    of_jobs = _of_jobs(report, jobs)
    failures = verdicts.count(Verdict.FAIL)
    if failures:
        return Verdict.FAIL, f"{failures} of NSS's rules {'is' if failures == 1 else 'are'} broken. {of_jobs}"
    if Verdict.WARN in verdicts:
        return Verdict.WARN, f"No rule is broken; users will notice what the warnings say. {of_jobs}"
    return Verdict.PASS, f"Everything that was tested is as NSS expects it. {of_jobs}"


def _of_jobs(report: Report, jobs: list[JobResult]) -> str:
    if same_for_all(jobs):
        return f"No job was tried: {jobs[0].lacks[0] if jobs[0].lacks else 'nothing tests them'}."
    counted = {outcome: sum(result.outcome == outcome for result in jobs) for outcome in Outcome}
    words = [f"{number} {SEVERAL[outcome]}" for outcome, number in counted.items() if number]
    of_jobs = f"Of {len(jobs)} jobs {', '.join(words)}."
    if len(words) == 1:
        of_jobs = f"All {words[0].replace(' ', ' jobs ', 1)}."
    if report.facts.get("root certificates"):
        of_jobs += " NSS takes root certificates and their trust from it."
    return of_jobs


def same_for_all(jobs: list[JobResult]) -> bool:
    """Whether no job was tried, and all for one reason: a table of them would say it seventeen times."""
    reasons = {(result.because, result.lacks) for result in jobs}
    return len(reasons) == 1 and all(result.outcome == Outcome.UNKNOWN for result in jobs)


def worst_first(results: list[RuleResult]) -> list[RuleResult]:
    """By severity, in the catalogue's order; a rule without one counts as B."""
    return sorted(results, key=lambda result: result.rule.severity or "B")


def evidence(report: Report, finding: Finding) -> list[str]:
    """The lines of a finding, each `Head: text`."""
    known = rule(finding.rule)
    lines = [f"Found: {finding.saw}", f"NSS: {finding.nss or known.nss}"]
    lines += [f"Call: {call}" for call in calls(report, finding)]
    lines.append(f"Expected: {expectation(finding)}")
    lines.append(f"User sees: {finding.user or known.user}")
    lines.append(f"In NSS: {', '.join(known.where)}")
    if finding.scenario:
        lines.append(f"Scenario: {finding.scenario}")
    return lines


def expectation(finding: Finding) -> str:
    """What this call should have answered, where that is known, and what the rule asks of a module."""
    known = rule(finding.rule).expects
    return f"{finding.expects} {known}" if finding.expects and finding.expects not in known else known


def calls(report: Report, finding: Finding, most: int = MOST_CALLS, *, brief: bool = False) -> list[str]:
    """The calls that prove a finding, `most` of them, on a line each, with what they gave; `brief`: long values cut."""
    cut = _cut if brief else str
    scenario = next((each for each in report.scenarios if each.name == finding.scenario), None)
    if scenario is None:
        return []
    shown = []
    for number in finding.calls[:most]:
        call = scenario.call(number)
        if call is not None:
            out = "; ".join(f"{item['name']}={cut(item['text'])}" for item in call["out"] if call["rv"] == 0)
            text = cut(call_text(call["function"], call["arguments"], call["rv"]))
            shown.append(f"#{number} {text}" + (f" [{out}]" if out else ""))
    if len(finding.calls) > most:
        shown.append(f"... and {len(finding.calls) - most} more")
    return shown


def _cut(text: str) -> str:
    """Long values of a call shortened: a reader of a terminal looks for names, not for moduli."""
    return LONG_HEX.sub(lambda found: f"{found[1]}...", text)
