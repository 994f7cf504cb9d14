"""What a module does to its host becomes findings, and the run goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from keyfob.nss import watch
from keyfob.nss.jobs import Outcome, judge
from keyfob.nss.model import Ended, Finding, Report, ScenarioResult, Verdict
from keyfob.nss.options import Options
from keyfob.nss.runner import CannotCheck, run, select_scenarios
from keyfob.nss.scenarios import scenarios

if TYPE_CHECKING:
    from pathlib import Path

    from tests.check.conftest import Build


def checked(path: str, *names: str, limit: float = 10) -> Report:
    chosen, wanted = select_scenarios(scenarios(), names, ())
    return run(chosen, Options(path, limit=limit), wanted=wanted)


def scenario(report: Report, name: str) -> ScenarioResult:
    return next(each for each in report.scenarios if each.name == name)


def failures(report: Report, rule: str) -> list[Finding]:
    return [f for each in report.scenarios for f in each.findings if f.rule == rule and f.verdict == Verdict.FAIL]


def test_a_module_without_a_fault_of_conduct_passes_the_rules_of_conduct(build: Build) -> None:
    results = checked(build("NOTHING"), "load").results()
    assert [results[rule].verdict for rule in ("X1", "X2", "X3", "X4", "X5")] == [Verdict.PASS] * 5
    assert results["G6"].verdict == Verdict.PASS


def test_a_crash_names_the_signal_and_the_call_and_fails_the_rule_that_was_checked(build: Build) -> None:
    report = checked(build("CRASH"), "load", "load: NULL")
    crashed = scenario(report, "load")
    assert crashed.ended == Ended.CRASHED
    for rule in ("X1", "G6"):
        (finding,) = [found for found in failures(report, rule) if found.scenario == "load"]
        assert "SIGSEGV in C_GetInfo()" in finding.saw
        call = crashed.call(finding.calls[0])
        assert call is not None
        assert (call["function"], call["rv"]) == ("C_GetInfo", None)
    assert report.results()["G7"].verdict == Verdict.NOT_TESTED
    assert "C_GetInfo" in report.results()["G7"].reason


def test_the_run_goes_on_after_a_crash(build: Build) -> None:
    report = checked(build("CRASH"), "load", "load: NULL")
    assert scenario(report, "load: NULL").ended == Ended.DONE


def test_a_hang_ends_at_the_time_limit(build: Build) -> None:
    started = time.monotonic()
    report = checked(build("HANG"), "load: NULL", "load", limit=0.5)
    assert time.monotonic() - started < 10
    assert scenario(report, "load").ended == Ended.HUNG
    assert failures(report, "X2")[0].saw == "C_GetInfo did not come back within 0.5 s"


def test_an_exit_of_the_host_is_a_finding(build: Build) -> None:
    report = checked(build("EXIT"), "load")
    assert scenario(report, "load").ended == Ended.EXITED
    assert "exit code 3 in C_GetInfo()" in failures(report, "X3")[0].saw


def test_a_crash_at_the_end_of_the_process_is_a_finding(build: Build) -> None:
    report = checked(build("CRASH_AT_EXIT"), "load")
    assert "at the end of the process" in failures(report, "X1")[0].saw
    assert report.results()["G7"].verdict == Verdict.PASS


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "rule", "saw"),
    [
        ("LOAD_CRASH", "X1", "the process got SIGSEGV while it was being loaded"),
        ("LOAD_EXIT", "X3", "the process ended with exit code 4 while it was being loaded"),
        ("LOAD_HANG", "X2", "loading the library took longer than 1 s"),
        ("HANG_AT_ONCE", "X2", "C_Initialize did not come back within 1 s"),
        ("HEAP", "X1", "the process got SIGABRT in C_Initialize"),
        ("CLOSE_FILES", "X3", "it closed files of its host, the pipe to the checker among them, in C_Initialize"),
    ],
)
def test_a_module_that_does_not_load_is_not_tried_again_and_again(
    build: Build, fault: str, rule: str, saw: str
) -> None:
    report = checked(build(fault), "load", "slots", "login", "events", limit=1)
    assert report.facts["not loaded"].startswith(saw)
    assert failures(report, rule)[0].saw.startswith(saw)
    assert {scenario(report, name).ended for name in ("slots", "login", "events")} == {Ended.SKIPPED}
    assert report.results()["S3"].verdict == Verdict.NOT_TESTED
    assert {result.outcome for result in judge(report)} == {Outcome.NOT}


def test_a_crash_before_what_a_rule_speaks_of_is_not_held_against_it(build: Build) -> None:
    report = checked(build("HEAP"), "load: threads", "load")
    assert failures(report, "P9") == []
    assert failures(report, "X1")


def test_a_number_of_slots_that_cannot_be_is_a_finding(build: Build) -> None:
    report = checked(build("HUGE_COUNT"), "slots")
    assert f"counted {1 << 60} slots" in failures(report, "S1")[0].saw
    assert scenario(report, "slots").ended == Ended.DONE


def test_a_flood_of_output_ends_the_scenario(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FLOOD", 1 << 20)
    report = checked(build("FLOOD"), "load: NULL", limit=30)
    assert failures(report, "X4")[0].saw.startswith("it printed more than 1 MiB in C_Initialize")
    assert failures(report, "X2") == []


@pytest.mark.parametrize("fault", ["COMPLAIN", "SPIN", "CHILD"])
def test_lines_on_stderr_threads_and_child_processes_are_no_finding(build: Build, fault: str) -> None:
    report = checked(build(fault), "load: NULL")
    assert report.results()["G2"].verdict == Verdict.PASS
    assert not report.failed
    assert ("on fire" in scenario(report, "load: NULL").stderr) == (fault == "COMPLAIN")


def test_output_on_stdout_is_a_finding_and_breaks_nothing(build: Build) -> None:
    report = checked(build("PRINT"), "load")
    assert "hello from the module" in failures(report, "X4")[0].saw
    assert scenario(report, "load").stdout.startswith("hello from the module\n")
    assert report.results()["G6"].verdict == Verdict.PASS


def test_writing_behind_a_buffer_is_a_finding(build: Build) -> None:
    report = checked(build("OVERRUN"), "load")
    (finding, *_more) = failures(report, "X5")
    assert "C_GetSlotList" in finding.saw


def test_a_null_in_the_function_list_fails_rule_g5_and_is_not_called(build: Build) -> None:
    report = checked(build("NO_POINTER"), "load")
    assert "C_WaitForSlotEvent" in failures(report, "G5")[0].saw
    assert scenario(report, "load").ended == Ended.DONE


def test_a_module_that_refuses_nss_flags_fails_g2_and_goes_on_with_one_thread(build: Build) -> None:
    report = checked(build("REFUSE_FLAGS"), "load")
    assert {rule for rule in ("G2", "P9") if failures(report, rule)} == {"G2", "P9"}
    assert report.results()["G6"].verdict == Verdict.PASS


def test_a_slot_that_nss_would_not_use_leaves_its_rules_untested(build: Build) -> None:
    report = checked(build("TOKEN"), "login")
    assert (
        "NSS does not use slot 7: C_GetTokenInfo answered CKR_FUNCTION_NOT_SUPPORTED"
        in scenario(report, "login").detail
    )
    assert report.results()["SE11"].verdict == Verdict.NOT_TESTED


@pytest.mark.parametrize("content", [b"", b"no shared object"])
def test_what_is_no_module_cannot_be_checked(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not-a-module.so"
    path.write_bytes(content)
    with pytest.raises(CannotCheck, match="cannot be loaded"):
        checked(str(path), "load")


def test_a_slot_that_is_not_there_is_the_users_mistake(build: Build) -> None:
    chosen, _wanted = select_scenarios(scenarios(), ("login",), ())
    with pytest.raises(CannotCheck, match="no slot 3; it has 7"):
        run(chosen, Options(build("NOTHING"), slot=3, limit=10))


def test_only_and_skip_take_rules_and_scenarios() -> None:
    chosen, wanted = select_scenarios(scenarios(), ("G7",), ())
    assert [each.name for each in chosen] == ["load"]
    assert wanted is not None
    assert "G7" in wanted
    assert "G6" not in wanted
    chosen, wanted = select_scenarios(scenarios(), (), ("load", "P17"))
    assert all(not each.name.startswith("load") for each in chosen)
    assert wanted is not None
    assert "P17" not in wanted
    with pytest.raises(KeyError):
        select_scenarios(scenarios(), ("nonsense",), ())


def test_every_scenario_has_a_name_of_its_own() -> None:
    names = [each.name for each in scenarios()]
    assert len(set(names)) == len(names)
