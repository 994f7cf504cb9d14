"""P6: NSS gives an empty SO PIN, so a module that erases a token with a real one must take the empty one afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.nss.model import Finding, Report, Verdict
from keyfob.nss.options import Options
from keyfob.nss.runner import run, select_scenarios
from keyfob.nss.scenarios import scenarios
from tests.conftest import CHEAP_PINS, module_path

SOURCE = Path(__file__).with_name("so_pin_demanded.c")
HEADERS = Path(__file__).parents[2] / "src" / "keyfob" / "nss" / "tracer"
PIN, SO_PIN = "13572468", "86427531"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(CHEAP_PINS)
    monkeypatch.setenv("KEYFOB_HOME", str(home))
    command = [sys.executable, "-m", "keyfob.cli", "init", "work", "--pin", PIN, "--so-pin", SO_PIN]
    subprocess.run(command, check=True)


@pytest.fixture
def demanding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a module that never takes an empty SO PIN."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler: keyfob itself needs one to be built")
    path = tmp_path / "so_pin_demanded.so"
    subprocess.run([compiler, "-shared", "-fPIC", f"-I{HEADERS}", "-o", path, SOURCE], check=True)
    monkeypatch.setenv("SO_PIN_DEMANDED_OF", str(module_path()))
    return str(path)


def checked(path: str) -> Report:
    """The scenario on a token that is erased with a real SO PIN."""
    chosen, wanted = select_scenarios(scenarios(), ("first pin",), ())
    return run(chosen, Options(path, pin=PIN, so_pin=SO_PIN, init=True, write=True), wanted=wanted)


def failures(report: Report) -> list[Finding]:
    return [f for each in report.scenarios for f in each.findings if f.verdict == Verdict.FAIL]


def test_a_module_that_takes_the_empty_so_pin_beside_a_real_one_passes(token: None) -> None:
    report = checked(str(module_path()))
    assert failures(report) == []
    for rule in ("P6", "S13", "S18", "S19", "S20", "N1", "N6", "N7"):
        assert report.results()[rule].verdict == Verdict.PASS, rule


def test_a_module_that_demands_the_so_pin_fails_and_the_run_goes_on(token: None, demanding: str) -> None:
    report = checked(demanding)
    assert {finding.rule for finding in failures(report)} == {"P6"}
    assert "C_Login answered CKR_PIN_INCORRECT to the SO with an empty PIN" in failures(report)[0].saw
    for rule in ("S13", "S18", "S19", "S20"):  # the first PIN by the standard's way
        assert report.results()[rule].verdict == Verdict.PASS, rule
