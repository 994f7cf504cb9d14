"""What a run finds: verdicts, findings with their evidence, scenarios with their calls, and the report of them all.

Everything here is JSON-ready (docs/check.md documents the schema, report/as_json.py writes it).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keyfob.nss import conduct
from keyfob.nss.rules import ALL, Rule


class Verdict(StrEnum):
    """The worst first: over several scenarios a rule's verdict is the worst that was found, as far as it was tested."""

    FAIL = "fail"
    WARN = "warn"
    PASS = "pass"  # noqa: S105 - a verdict
    NOT_TESTED = "not tested"
    NOT_APPLICABLE = "not applicable"


ORDER = list(Verdict)


@dataclass(slots=True)
class Finding:
    """What one scenario found about one rule.

    `saw` says what happened (for a skipped one: why). `calls` are the numbers of the calls that prove it, `span` the
    first and the last call of the check. `nss`, `expects` and `user` replace the catalogue's text where one case of a
    rule is narrower than the rule.
    """

    rule: str
    verdict: Verdict
    saw: str = ""
    calls: list[int] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)
    nss: str = ""
    expects: str = ""
    user: str = ""
    scenario: str = ""

    def to_json(self) -> dict[str, Any]:
        known = rule(self.rule)
        return {
            "rule": self.rule,
            "verdict": str(self.verdict),
            "saw": self.saw,
            "calls": self.calls,
            "span": list(self.span),
            "nss": self.nss or known.nss,
            "expects": self.expects or known.expects,
            "user": self.user or known.user,
            "where": list(known.where),
            "scenario": self.scenario,
        }


class Ended(StrEnum):
    """How a scenario's process ended."""

    DONE = "done"
    CRASHED = "crashed"
    HUNG = "hung"
    EXITED = "exited"
    FAULT = "fault of the checker"
    SKIPPED = "skipped"


@dataclass(slots=True)
class ScenarioResult:
    """One scenario: its findings, its calls in order, how it ended, what the module printed.

    `hung_in` is the function that hung before any work of the scenario itself.
    """

    name: str
    title: str
    ended: Ended = Ended.DONE
    detail: str = ""
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    hung_in: str = ""

    def call(self, number: int) -> dict[str, Any] | None:
        return next((call for call in self.calls if call["number"] == number), None)


@dataclass(slots=True)
class RuleResult:
    """A rule's verdict over all scenarios, and the findings that gave it."""

    rule: Rule
    verdict: Verdict
    findings: list[Finding]

    @property
    def reason(self) -> str:
        """Why, in a line: the first finding of the verdict."""
        return next((finding.saw for finding in self.findings if finding.verdict == self.verdict), "")


@dataclass(slots=True)
class Report:
    """A whole run. `facts` is what was learnt of the module (Context.fact), `wanted` the rules that it is about."""

    module: str
    facts: dict[str, Any] = field(default_factory=dict)
    scenarios: list[ScenarioResult] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    wanted: frozenset[str] | None = None

    def results(self) -> dict[str, RuleResult]:
        """Every rule that was asked for, in order, with its verdict; the checker's own rules X last."""
        shown = [each for each in rules() if self.wanted is None or each.id in self.wanted]
        found: dict[str, list[Finding]] = {each.id: [] for each in shown}
        for scenario in self.scenarios:
            for finding in scenario.findings:
                if finding.rule in found:
                    found[finding.rule].append(finding)
        return {each.id: _result(each, found[each.id]) for each in shown}

    @property
    def failed(self) -> bool:
        return any(result.verdict == Verdict.FAIL for result in self.results().values())


def _result(each: Rule, findings: list[Finding]) -> RuleResult:
    if not findings:
        reason = each.unchecked or "no scenario of this run tests it"
        findings = [Finding(each.id, Verdict.NOT_TESTED, reason)]
    return RuleResult(each, worst(finding.verdict for finding in findings), findings)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=ORDER.index)


def rules() -> tuple[Rule, ...]:
    """The catalogue and the checker's own rules."""
    return (*ALL, *conduct.RULES)


_BY_ID: dict[str, Rule] = {}


def rule(rule_id: str) -> Rule:
    """A rule of the catalogue or of conduct; KeyError when there is none."""
    if not _BY_ID:
        _BY_ID.update({each.id: each for each in rules()})
    return _BY_ID[rule_id]
