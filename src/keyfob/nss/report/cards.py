"""A broken rule on a card of the page: what was found, the calls that show it, and what to do about it."""

from __future__ import annotations

from typing import Any

from keyfob.nss.driver.record import NO_ANSWER
from keyfob.nss.model import Finding, Report, RuleResult, ScenarioResult, Verdict
from keyfob.nss.report.page import escape
from keyfob.nss.report.wording import MOST_CALLS

SEVERITIES = {"A": "makes the token unusable, or a usual task fails", "B": "one feature fails", "C": "an annoyance"}
MOST_FINDINGS = 2
"""Findings of a card that are open; the others, mostly of one kind with them, are unfolded by a click."""
MOST_OPEN = 2
"""Calls of a finding that are open."""
SIMPLE = 110
"""Letters of a call that stands on one line."""
FEW = 6
"""Attributes of a template that stand in one column."""


def anchor(scenario: ScenarioResult) -> str:
    """The name of a scenario's place on the page; its calls are at NAME-NUMBER."""
    return "call-" + "".join(letter if letter.isalnum() else "-" for letter in scenario.name)


def card(report: Report, result: RuleResult) -> str:
    """Everything about a rule that failed or warns."""
    rule = result.rule
    found = [finding for finding in result.findings if finding.verdict == result.verdict]
    blocks = [_found(report, finding) for finding in found]
    folded = ""
    if len(blocks) > MOST_FINDINGS:
        number = len(blocks) - MOST_FINDINGS
        rest = "".join(blocks[MOST_FINDINGS:])
        folded = f"<details><summary>{_more(number, 'finding')}</summary>{rest}</details>"
    severity = ""
    if rule.severity:
        severity = f' <span class="soft">severity {rule.severity}: {SEVERITIES[rule.severity]}</span>'
    rows = [
        ("The rule", escape(rule.statement)),
        ("NSS does", _texts(found, "nss", rule.nss)),
        ("NSS expects", escape(rule.expects)),
        ("A user sees", _texts(found, "user", rule.user)),
        ("In NSS", f"<code>{escape(', '.join(rule.where))}</code>"),
        ("In the standard", escape(rule.standard)),
    ]
    look = "fail" if result.verdict == Verdict.FAIL else "warn"
    return (
        f'<section class="card {look}" id="finding-{rule.id}">'
        f'<h3><a href="#rule-{rule.id}">{rule.id}</a> {escape(rule.title)}{severity}</h3>'
        f"{''.join(blocks[:MOST_FINDINGS])}{folded}{_list(rows)}</section>"
    )


def _texts(found: list[Finding], field: str, usual: str) -> str:
    """What is true of this case: a finding that is narrower than its rule brings a text of its own."""
    texts = dict.fromkeys(getattr(finding, field) or usual for finding in found)
    return "<br>".join(escape(text) for text in texts)


def _list(rows: list[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    return f"<dl>{items}</dl>"


def _found(report: Report, finding: Finding) -> str:
    scenario = next((each for each in report.scenarios if each.name == finding.scenario), None)
    rows = [
        ("Found", f"<b>{escape(finding.saw)}</b>"),
        ("The call" if len(finding.calls) == 1 else "The calls", _evidence(scenario, finding) if scenario else ""),
        ("The right answer", f"<b>{escape(finding.expects)}</b>" if finding.expects else ""),
    ]
    if scenario is not None:
        rows.append(("When", f'<a href="#{anchor(scenario)}">{escape(scenario.title)}</a>'))
    return _list(rows)


def _evidence(scenario: ScenarioResult, finding: Finding) -> str:
    lines = []
    for number in finding.calls[:MOST_CALLS]:
        call = scenario.call(number)
        if call is not None:
            lines.append(f'<a class="evidence-call" href="#{anchor(scenario)}-{number}">{call_html(call)}</a>')
    folded = "".join(lines[MOST_OPEN:])
    if folded:
        folded = f"<details><summary>{_more(len(lines) - MOST_OPEN, 'call')}</summary>{folded}</details>"
    if len(finding.calls) > MOST_CALLS:
        folded += f'<span class="soft">and {len(finding.calls) - MOST_CALLS} more</span>'
    return "".join(lines[:MOST_OPEN]) + folded


def _more(number: int, what: str) -> str:
    return f"{number} more {what}{'s' * (number > 1)}"


def call_html(call: dict[str, Any]) -> str:
    """A call with its answer: on one line where it is short, else an argument or an attribute a line."""
    given = [argument for argument in call["arguments"] if argument["text"] != "out"]
    answer = f"<b>{escape(call.get('rv_name') or NO_ANSWER)}</b>"
    name = f"<b>{escape(call['function'])}</b>"
    got = [item for item in call.get("out", ()) if call["rv"] == 0]
    short = ", ".join(f"{argument['name']}={argument['text']}" for argument in given)
    if len(short) <= SIMPLE:
        line = f"<code>{name}({escape(short)}) → {answer}</code>"
    else:
        line = f"<code>{name}({''.join(map(_argument, given))}) → {answer}</code>"
    return line + "".join(f'<span class="got"><code>{escape(_pair(item))}</code></span>' for item in got)


def _pair(item: dict[str, Any]) -> str:
    return f"{item['name']} = {item['text']}"


def _argument(argument: dict[str, Any]) -> str:
    if not argument.get("attributes"):
        return f'<span class="argument">{escape(_pair(argument))}</span>'
    rows = "".join(f"<span>{escape(each['type'])} = {escape(each['value'])}</span>" for each in argument["attributes"])
    look = "attributes many" if len(argument["attributes"]) > FEW else "attributes"
    return f'<span class="argument">{escape(argument["name"])} = {{<span class="{look}">{rows}</span>}}</span>'
