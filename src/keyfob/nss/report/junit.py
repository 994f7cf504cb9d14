"""The report as JUnit XML, which CI systems show: a test suite for each group of rules, a test case for each rule."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from keyfob.nss.model import Report, RuleResult, Verdict
from keyfob.nss.report.wording import evidence
from keyfob.nss.rules import GROUPS


def text(report: Report) -> str:
    """XML; a warning is a passed case with its text on standard output."""
    root = ET.Element("testsuites", name=f"keyfob check {report.module}")
    results = list(report.results().values())
    for group, title in {**GROUPS, "X": "Conduct"}.items():
        own = [result for result in results if result.rule.group == group]
        if own:
            root.append(_suite(report, f"{group}: {title}", own))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report, name: str, results: list[RuleResult]) -> ET.Element:
    failed = sum(result.verdict == Verdict.FAIL for result in results)
    skipped = sum(result.verdict in (Verdict.NOT_TESTED, Verdict.NOT_APPLICABLE) for result in results)
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(results)),
        failures=str(failed),
        skipped=str(skipped),
        errors="0",
        timestamp=report.started,
    )
    for result in results:
        case = ET.SubElement(
            suite, "testcase", classname=f"nss.{result.rule.group}", name=f"{result.rule.id} {result.rule.title}"
        )
        shown = [f for f in result.findings if f.verdict == result.verdict]
        body = _clean("\n\n".join("\n".join(evidence(report, finding)) for finding in shown))
        reason = _clean(result.reason)
        if result.verdict == Verdict.FAIL:
            ET.SubElement(case, "failure", message=reason, type=result.rule.id).text = body
        elif result.verdict == Verdict.WARN:
            ET.SubElement(case, "system-out").text = body
        elif result.verdict in (Verdict.NOT_TESTED, Verdict.NOT_APPLICABLE):
            ET.SubElement(case, "skipped", message=f"{result.verdict}: {reason}")
    return suite


def _clean(text: str) -> str:
    """XML has no control characters."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
