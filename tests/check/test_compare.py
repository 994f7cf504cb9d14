"""`keyfob check --compare`: what got better, worse, is new or gone, and the exit code that a CI job looks at."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from keyfob.cli import keyfob
from keyfob.nss.report import as_json, compare
from keyfob.nss.report.compare import Change
from tests.check.reports import HOSTILE, hostile_report

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "check.md"
Document = dict[str, Any]


@pytest.fixture
def before() -> Document:
    """G6 and X1 fail, P7 warns, G7 passes, S15 is not tested."""
    document = as_json.document(hostile_report())
    assert isinstance(document, dict)
    return document


@pytest.fixture
def after(before: Document) -> Document:
    return copy.deepcopy(before)


def with_verdict(document: Document, rule_id: str, verdict: str, saw: str = "") -> None:
    rule = next(rule for rule in document["rules"] if rule["id"] == rule_id)
    rule["verdict"] = verdict
    rule["findings"] = [{**rule["findings"][0], "verdict": verdict, "saw": saw}]


def with_outcome(document: Document, job_id: str, outcome: str) -> None:
    next(job for job in document["jobs"] if job["job"] == job_id)["outcome"] = outcome


def changes(before: Document, after: Document) -> dict[str, Change]:
    return {each.id: each.change for each in compare.compare(before, after).differences}


def command(folder: Path, before: Document, after: Document, *options: str) -> Result:
    for name, document in (("a.json", before), ("b.json", after)):
        (folder / name).write_text(json.dumps(document))
    line = ["check", "--compare", str(folder / "a.json"), str(folder / "b.json"), *options]
    return CliRunner().invoke(keyfob, line)


def test_the_same_report_twice_has_no_differences(before: Document, after: Document) -> None:
    found = compare.compare(before, after)
    assert found.differences == []
    assert found.same == len(before["rules"]) + len(before["jobs"])
    assert not found.worse


@pytest.mark.parametrize(
    ("rule", "verdict", "change"),
    [
        ("G6", "warn", Change.BETTER),
        ("G6", "pass", Change.BETTER),
        ("P7", "pass", Change.BETTER),
        ("P7", "fail", Change.WORSE),
        ("G7", "warn", Change.WORSE),
        ("G7", "fail", Change.WORSE),
        ("S15", "fail", Change.NEW),
        ("S15", "pass", Change.NEW),
        ("G7", "not tested", Change.GONE),
        ("G6", "not applicable", Change.GONE),
    ],
)
def test_a_rules_new_verdict_is_judged(
    before: Document, after: Document, rule: str, verdict: str, change: Change
) -> None:
    with_verdict(after, rule, verdict)
    assert changes(before, after) == {rule: change}


def test_what_neither_run_tested_is_no_difference(before: Document, after: Document) -> None:
    with_verdict(after, "S15", "not applicable")
    assert changes(before, after) == {}


def test_a_rule_that_only_one_report_has_is_new_or_gone(before: Document, after: Document) -> None:
    after["rules"] = [rule for rule in after["rules"] if rule["id"] != "G6"]
    assert changes(before, after) == {"G6": Change.GONE}
    assert changes(after, before) == {"G6": Change.NEW}


@pytest.mark.parametrize(
    ("was", "now", "change"),
    [
        ("works", "works with loss", Change.WORSE),
        ("works with loss", "does not work", Change.WORSE),
        ("does not work", "works", Change.BETTER),
        ("not tested", "does not work", Change.NEW),
        ("works", "not tested", Change.GONE),
    ],
)
def test_a_jobs_new_outcome_is_judged(before: Document, after: Document, was: str, now: str, change: Change) -> None:
    with_outcome(before, "keygen", was)
    with_outcome(after, "keygen", now)
    assert changes(before, after) == {"keygen": change}


def test_the_exit_code_is_1_only_when_something_got_worse(tmp_path: Path, before: Document, after: Document) -> None:
    with_verdict(after, "S15", "fail")
    with_verdict(after, "G6", "pass")
    assert command(tmp_path, before, after).exit_code == 0
    with_verdict(after, "G7", "warn")
    assert command(tmp_path, before, after).exit_code == 1


def test_the_text_names_what_got_worse_and_what_was_seen(tmp_path: Path, before: Document, after: Document) -> None:
    with_verdict(after, "G7", "fail", "the description is blank")
    with_outcome(before, "keygen", "works")
    with_outcome(after, "keygen", "does not work")
    said = command(tmp_path, before, after).stdout
    assert "pass -> fail: the description is blank" in said
    assert "Key generation" in said
    assert "works -> does not work" in said
    assert "2 worse" in said


def test_runs_that_were_allowed_different_things_say_so(tmp_path: Path, before: Document, after: Document) -> None:
    after["options"]["write"] = False
    assert "write: yes, then no" in command(tmp_path, before, after).stdout


def test_control_characters_of_a_module_do_not_reach_the_terminal(
    tmp_path: Path, before: Document, after: Document
) -> None:
    with_verdict(after, "G7", "fail", HOSTILE)
    said = command(tmp_path, before, after).stdout
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_the_json_has_the_documented_keys(tmp_path: Path, before: Document, after: Document) -> None:
    with_verdict(after, "G7", "fail", "blank")
    result = command(tmp_path, before, after, "--json", "-")
    document = json.loads(result.stdout)
    assert (document["schema"], document["version"], document["verdict"]) == ("keyfob-check-compare", 1, "worse")
    assert document["counts"]["worse"] == len(document["differences"]) == 1
    text = DOCUMENTATION.read_text()
    for key in (*document, *document["before"], *document["differences"][0], *document["counts"]):
        assert f"`{key}`" in text, f"docs/check.md does not name {key}"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "keyfob-check", "version": 99}'])
def test_what_is_no_report_makes_the_code_2(tmp_path: Path, before: Document, content: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(before))
    (tmp_path / "b.json").write_text(content)
    line = ["check", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    result = CliRunner().invoke(keyfob, line)
    assert result.exit_code == 2
    assert "b.json" in result.output


def test_a_module_beside_two_reports_is_refused(tmp_path: Path, before: Document) -> None:
    (tmp_path / "a.json").write_text(json.dumps(before))
    line = ["check", "./module.so", "--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]
    assert CliRunner().invoke(keyfob, line).exit_code == 2
