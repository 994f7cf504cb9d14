"""`keyfob check`: exit codes, files, and what it says of a real token."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from keyfob.cli import keyfob
from keyfob.nss.options import Options
from keyfob.nss.report import as_json
from keyfob.nss.runner import run, select_scenarios
from keyfob.nss.scenarios import scenarios
from tests.conftest import CHEAP_PINS, module_path

if TYPE_CHECKING:
    from keyfob.nss.model import ScenarioResult
    from keyfob.nss.scenario import Scenario
    from tests.check.conftest import Build

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "check.md"
PIN = "13572468"


def command(line: str, code: int) -> Result:
    result = CliRunner().invoke(keyfob, shlex.split(line), prog_name="keyfob")
    assert result.exit_code == code, f"exit code {result.exit_code}: {result.output}{result.exception!r}"
    return result


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(CHEAP_PINS)
    monkeypatch.setenv("KEYFOB_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    command(f"init work --pin {PIN} --so-pin 86427531", 0)


@pytest.fixture
def document(build: Build, tmp_path: Path) -> Any:
    """The JSON report of a module that crashes."""
    path = tmp_path / "report.json"
    command(f"check {build('CRASH')} --only load --json {path}", 1)
    return json.loads(path.read_text())


def test_keyfob_fails_nothing_and_the_code_is_0(token: None) -> None:
    said = command(f"check {module_path()} --pin {PIN} --only load --only slots --only mechs --only login", 0).output
    assert "yes signing and decryption" in said
    assert "failed" not in said
    assert max(map(len, said.splitlines()[3:])) <= 80
    assert PIN not in said


def test_a_broken_rule_makes_the_code_1(build: Build) -> None:
    said = command(f"check {build('CRASH')} --only load", 1).output
    assert "A module never crashes its host" in said
    assert "Call" in said
    assert "C_GetInfo()" in said


@pytest.mark.parametrize(
    "line",
    [
        *("check", "check {here}/missing.so", "check {module} --only nonsense", "check {text}"),
        *("check {module} --slot 99", "check {module} --token-label nobody", "check {module} --slot 7 --token-label x"),
        *("check {here}", "check {module} --only load --html {here}/no/such/folder/report.html"),
        *("check {module} --only load --json {here}", "check {module} --only load --junit /dev/full"),
    ],
)
def test_what_cannot_be_checked_makes_the_code_2(build: Build, tmp_path: Path, line: str) -> None:
    (tmp_path / "text").write_text("no module")
    command(line.format(here=tmp_path, module=build("NOTHING"), text=tmp_path / "text"), 2)


def test_a_wrong_pin_is_tried_once_and_makes_the_code_2(token: None, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = command(f"check {module_path()} --pin 99999999 --only login --only find --json {report}", 2).output
    assert "it was tried once" in said
    logins = [
        call
        for scenario in json.loads(report.read_text())["scenarios"]
        for call in scenario["calls"]
        if call["function"] == "C_Login" and call["rv_name"] == "CKR_PIN_INCORRECT"
    ]
    assert len(logins) == 1


def test_no_wrong_pin_is_tried_where_one_was_before(token: None, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command(f"check {module_path()} --pin 99999999 --only login", 2)  # leaves CKF_USER_PIN_COUNT_LOW behind
    command(f"check {module_path()} --pin {PIN} --only login --json {report}", 0)
    document = json.loads(report.read_text())
    answers = {call["rv_name"] for scenario in document["scenarios"] for call in scenario["calls"]}
    assert "CKR_PIN_INCORRECT" not in answers
    (wrong_pin,) = [rule for rule in document["rules"] if rule["id"] == "S15"]
    assert "CKF_USER_PIN_COUNT_LOW" in json.dumps(wrong_pin)


@pytest.mark.long
def test_nothing_is_written_without_being_told(token: None, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command(f"key generate work --type ec:p256 --name mine --pin {PIN}", 0)
    before = command(f"list work --pin {PIN}", 0).output
    command(f"check {module_path()} --pin {PIN} --so-pin 86427531 --json {report}", 0)
    assert command(f"list work --pin {PIN}", 0).output == before
    makers = ("C_CreateObject", "C_GenerateKeyPair", "C_GenerateKey", "C_UnwrapKey", "C_CopyObject", "C_DeriveKey")
    for scenario in json.loads(report.read_text())["scenarios"]:
        for call in scenario["calls"]:
            assert call["function"] not in ("C_InitToken", "C_InitPIN", "C_SetPIN")
            if call["function"] in makers:
                assert "CKA_TOKEN=TRUE" not in repr(call["arguments"])


def test_what_a_run_writes_it_removes(token: None) -> None:
    before = command(f"list work --pin {PIN}", 0).output
    command(f"check {module_path()} --pin {PIN} --write --only certificates", 0)
    assert command(f"list work --pin {PIN}", 0).output == before


def test_what_an_earlier_run_left_is_removed(token: None) -> None:
    before = command(f"list work --pin {PIN}", 0).output
    command(f"key generate work --type ec:p256 --name 'keyfob check' --pin {PIN}", 0)
    command(f"check {module_path()} --pin {PIN} --write --only certificates", 0)
    assert command(f"list work --pin {PIN}", 0).output == before


class Impatient:
    """A user who has had enough as soon as there is something on the token."""

    def started(self, scenario: Scenario) -> None:
        pass

    def calling(self, scenario: Scenario, function: str) -> None:
        if scenario.name == "key generation" and function == "C_SetAttributeValue":
            raise KeyboardInterrupt

    def ended(self, scenario: Scenario, result: ScenarioResult) -> None:
        pass


def test_what_a_run_wrote_is_removed_when_it_is_interrupted(token: None) -> None:
    before = command(f"list work --pin {PIN}", 0).output
    chosen, wanted = select_scenarios(scenarios(), ("key generation",), ())
    options = Options(str(module_path()), pin=PIN, write=True, limit=20)
    with pytest.raises(KeyboardInterrupt):
        run(chosen, options, Impatient(), wanted)
    assert options.made
    assert command(f"list work --pin {PIN}", 0).output == before


def test_a_job_that_was_not_tried_is_not_said_to_work(token: None, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command(f"check {module_path()} --pin {PIN} --only mechs --json {report}", 0)
    jobs = json.loads(report.read_text())["jobs"]
    assert {job["outcome"] for job in jobs} == {"not tested"}


def test_the_json_report_has_the_documented_keys(document: Any) -> None:
    text = DOCUMENTATION.read_text()
    for key in document:
        assert f"`{key}`" in text, f"docs/check.md does not name {key}"
    for part in ("rules", "jobs", "scenarios"):
        for key in document[part][0]:
            assert f"`{key}`" in text, f"docs/check.md does not name {key} of {part}"
    for finding in (f for rule in document["rules"] for f in rule["findings"]):
        assert set(finding) == {
            *("rule", "verdict", "saw", "calls", "span", "nss", "expects", "user", "where", "scenario")
        }
    assert (document["schema"], document["version"]) == ("keyfob-check", as_json.VERSION)
    assert f"Version {as_json.VERSION}" in text


def test_calls_in_the_json_report_have_the_documented_keys(document: Any) -> None:
    text = DOCUMENTATION.read_text()
    calls = [call for scenario in document["scenarios"] for call in scenario["calls"]]
    assert calls
    for key in {key for call in calls for key in call}:
        assert f"`{key}`" in text, f"docs/check.md does not name {key} of calls"
    crash = calls[-1] if calls[-1]["rv"] is None else next(call for call in calls if call["rv"] is None)
    assert crash["function"] == "C_GetInfo"


def test_junit_counts_as_the_report_does(build: Build, tmp_path: Path) -> None:
    xml, report = tmp_path / "report.xml", tmp_path / "report.json"
    command(f"check {build('CRASH')} --only load --junit {xml} --json {report}", 1)
    suites = ET.parse(xml).getroot().findall("testsuite")
    counts = json.loads(report.read_text())["counts"]
    assert sum(int(suite.get("failures", "")) for suite in suites) == counts["fail"] > 0
    assert sum(int(suite.get("tests", "")) for suite in suites) == sum(counts.values())


def test_json_to_standard_output_is_nothing_but_json(build: Build) -> None:
    result = CliRunner().invoke(keyfob, ["check", build("NOTHING"), "--only", "G6", "--json", "-"])
    assert json.loads(result.stdout)["rules"][0]["id"] == "G6"


def test_rules_are_listed_and_explained() -> None:
    listed = command("check --list-rules", 0).output
    assert "P6" in listed
    assert "slots: again" in listed
    explained = command("check --explain p6", 0).output
    assert "PK11_InitPin" in explained
    assert "first pin" in explained
    command("check --explain Q1", 2)
