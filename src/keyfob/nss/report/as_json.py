"""The report as JSON: docs/check.md documents the schema. A change that breaks readers raises VERSION."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from keyfob import __version__
from keyfob.nss.jobs import costs_every_job, judge
from keyfob.nss.model import Report, ScenarioResult, Verdict

SCHEMA = "keyfob-check"
VERSION = 1


def document(report: Report) -> dict[str, Any]:
    """The whole report, JSON-ready."""
    results = report.results()
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "keyfob": __version__,
        "module": report.module,
        "started": report.started,
        "seconds": report.seconds,
        "options": report.options,
        "facts": report.facts,
        "verdict": "fail" if report.failed else "pass",
        "counts": counts(report),
        "jobs": [job.to_json() for job in judge(report)],
        "every_job": list(costs_every_job(report)),
        "rules": [
            {
                "id": result.rule.id,
                "group": result.rule.group,
                "title": result.rule.title,
                "severity": result.rule.severity,
                "verdict": str(result.verdict),
                "findings": [finding.to_json() for finding in result.findings],
            }
            for result in results.values()
        ],
        "scenarios": [_scenario(scenario) for scenario in report.scenarios],
    }


def counts(report: Report) -> dict[str, int]:
    """How many rules have each verdict."""
    counted = Counter(str(result.verdict) for result in report.results().values())
    return {str(verdict): counted[str(verdict)] for verdict in Verdict}


def _scenario(scenario: ScenarioResult) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "title": scenario.title,
        "ended": str(scenario.ended),
        "detail": scenario.detail,
        "seconds": scenario.seconds,
        "stdout": scenario.stdout,
        "stderr": scenario.stderr,
        "calls": scenario.calls,
    }


def text(report: Report) -> str:
    return json.dumps(document(report), indent=1, ensure_ascii=False) + "\n"
