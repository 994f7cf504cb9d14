"""A failure in words: what NSS does, what was called, what came back, what was expected, what a user sees."""

from __future__ import annotations

from keyfob.nss.driver.record import call_text
from keyfob.nss.model import Finding, Report, rule

MOST_CALLS = 4
"""Calls of evidence that are written out; all are in the JSON."""


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


def calls(report: Report, finding: Finding) -> list[str]:
    """The calls that prove a finding, on a line each, with what they gave."""
    scenario = next((each for each in report.scenarios if each.name == finding.scenario), None)
    if scenario is None:
        return []
    shown = []
    for number in finding.calls[:MOST_CALLS]:
        call = scenario.call(number)
        if call is not None:
            out = "; ".join(f"{item['name']}={item['text']}" for item in call["out"] if call["rv"] == 0)
            text = call_text(call["function"], call["arguments"], call["rv"])
            shown.append(f"#{number} {text}" + (f" [{out}]" if out else ""))
    if len(finding.calls) > MOST_CALLS:
        shown.append(f"... and {len(finding.calls) - MOST_CALLS} more")
    return shown
