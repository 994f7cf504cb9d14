"""A run in words: its verdict; a failure with what NSS does, what was called, what was expected, what a user sees."""

from __future__ import annotations

from collections.abc import Iterable

from keyfob.nss.driver.record import call_text
from keyfob.nss.jobs import JobResult, Outcome
from keyfob.nss.model import Finding, Report, RuleResult, Verdict, rule

MOST_CALLS = 4
"""Calls of evidence that are written out; all are in the JSON."""
SEVERAL = {
    Outcome.WORKS: "work",
    Outcome.LOSS: "work with loss",
    Outcome.NOT: "do not work",
    Outcome.UNKNOWN: "were not tested",
}


def verdict(results: Iterable[RuleResult], jobs: list[JobResult]) -> tuple[Verdict, str]:
    """The answer to what a run is about: the worst verdict of any rule, and a sentence."""
    verdicts = [result.verdict for result in results]
    counted = {outcome: sum(result.outcome == outcome for result in jobs) for outcome in Outcome}
    words = [f"{number} {SEVERAL[outcome]}" for outcome, number in counted.items() if number]
    of_jobs = f"Of {len(jobs)} jobs {', '.join(words)}."
    if len(words) == 1:
        of_jobs = f"All {words[0].replace(' ', ' jobs ', 1)}."
    failures = verdicts.count(Verdict.FAIL)
    if failures:
        return Verdict.FAIL, f"{failures} of NSS's rules {'is' if failures == 1 else 'are'} broken. {of_jobs}"
    if Verdict.WARN in verdicts:
        return Verdict.WARN, f"No rule is broken; users will notice what the warnings say. {of_jobs}"
    return Verdict.PASS, f"Everything that was tested is as NSS expects it. {of_jobs}"


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


def calls(report: Report, finding: Finding, most: int = MOST_CALLS) -> list[str]:
    """The calls that prove a finding, `most` of them, on a line each, with what they gave."""
    scenario = next((each for each in report.scenarios if each.name == finding.scenario), None)
    if scenario is None:
        return []
    shown = []
    for number in finding.calls[:most]:
        call = scenario.call(number)
        if call is not None:
            out = "; ".join(f"{item['name']}={item['text']}" for item in call["out"] if call["rv"] == 0)
            text = call_text(call["function"], call["arguments"], call["rv"])
            shown.append(f"#{number} {text}" + (f" [{out}]" if out else ""))
    if len(finding.calls) > most:
        shown.append(f"... and {len(finding.calls) - most} more")
    return shown
