"""The demo itself: it must be able to fail, to end, and to leave nothing behind. Tested on SoftHSM, a known module."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.__main__ import main, with_needs
from demo.nss import StepFailedError, Tools
from demo.server import listens, selfserv, serve, tstclnt
from demo.stage import DATABASE
from demo.steps import all_steps
from demo.steps.mail import verify
from demo.tokens import environment
from tests.interop.nss import REPOSITORY

if TYPE_CHECKING:
    from demo.stage import Stage

pytestmark = pytest.mark.interop


# --- what a step rests on can fail -----------------------------------------------------------------------------------


def test_wrong_pin_fails_the_steps_that_need_the_key(softhsm: Stage) -> None:
    assert softhsm.show("add-module").state == "passed"
    softhsm.write_pins("not-the-pin")
    result = softhsm.show("rsa-key")
    assert result.state == "failed"
    assert "Incorrect password/PIN entered" in result.outcomes[-1].output
    assert softhsm.show("list-keys").state == "not run"


def test_absent_module_fails(softhsm: Stage) -> None:
    softhsm.token.module = str(softhsm.folder / "no-such-module.so")
    result = softhsm.show("add-module")
    assert result.state == "failed"
    assert "Failed to add module" in result.outcomes[-1].output


def test_token_that_is_not_there_fails(softhsm: Stage) -> None:
    softhsm.show("add-module")
    softhsm.token.label = "another-token"
    assert softhsm.show("slot-info").state == "failed"
    assert softhsm.show("rsa-key").state == "failed"


def test_tampered_message_fails_the_verification(softhsm: Stage) -> None:
    assert softhsm.show("sign-rsa").state == "passed"
    signed = softhsm.read("signed-rsa.p7m")
    softhsm.write("signed-rsa.p7m", signed.replace(b"never left", b"never lost"))
    with pytest.raises(StepFailedError, match="signature good"):
        verify(softhsm, "Alice", "signed-rsa.p7m")


def test_another_signer_fails_the_verification(softhsm: Stage) -> None:
    assert softhsm.show("sign-rsa").state == "passed"
    with pytest.raises(StepFailedError, match="another signer"):
        verify(softhsm, "Bob", "signed-rsa.p7m")


def test_client_that_trusts_nobody_refuses_the_server(softhsm: Stage) -> None:
    assert softhsm.show("web-ec").state == "passed"
    softhsm.certutil("-M", "-n", softhsm.nick("ca"), "-t", ",,")
    with pytest.raises(StepFailedError, match="tstclnt ended with exit code"), selfserv(softhsm, "web-ec") as server:
        tstclnt(softhsm, server.port)
    assert "SEC_ERROR_UNTRUSTED_ISSUER" in softhsm.tools.transcript[-2].output


# --- tools are bounded and leave nothing behind ----------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path, environment(tmp_path))


def test_hung_tool_is_killed_and_reported_with_its_output(tools: Tools) -> None:
    with pytest.raises(StepFailedError, match="hung") as failure:
        tools.run("sh", "-c", "echo before; sleep 600", time_limit=0.5)
    assert failure.value.outcome is not None
    assert failure.value.outcome.code is None
    assert failure.value.outcome.output == "before\n"
    assert failure.value.outcome.seconds < 10


def test_tool_that_hangs_on_its_terminal_is_killed(tools: Tools) -> None:
    with pytest.raises(StepFailedError, match="hung"):
        tools.run_on_terminal("sh", "-c", "read line; sleep 600", answer="never asked for", time_limit=0.5)


def test_tool_that_asks_gets_the_answer_on_its_own_terminal(tools: Tools) -> None:
    script = (
        "printf 'Enter Password or Pin for it: '; sleep 0.2; stty -echo; read pin </dev/tty; test \"$pin\" = secret"
    )
    tools.run_on_terminal("sh", "-c", script, answer="secret")
    with pytest.raises(StepFailedError, match="exit code 1"):
        tools.run_on_terminal("sh", "-c", script, answer="wrong")


def test_tool_without_terminal_cannot_prompt(tools: Tools) -> None:
    assert "tty" in tools.run("sh", "-c", "read pin </dev/tty", code=None).output


def test_tool_that_is_not_installed_is_named(tools: Tools) -> None:
    with pytest.raises(StepFailedError, match="no-such-tool is not installed"):
        tools.run("no-such-tool")


def test_tool_that_crashes_is_named_with_its_signal(tools: Tools) -> None:
    with pytest.raises(StepFailedError, match="died of signal SIGSEGV"):
        tools.run("sh", "-c", "kill -SEGV $$", code=None)


def test_server_that_cannot_start_is_reported_with_its_output(softhsm: Stage) -> None:
    softhsm.show("add-module")
    with pytest.raises(StepFailedError, match="before it listened") as failure, selfserv(softhsm, "nobody"):
        pass
    assert failure.value.outcome is not None
    assert "nobody" in failure.value.outcome.output


def test_server_is_stopped_when_the_step_fails(softhsm: Stage) -> None:
    assert softhsm.show("web-ec").state == "passed"
    message = "the step's own failure"
    started = []

    def fail() -> None:
        with selfserv(softhsm, "web-ec") as server:
            started.append(server)
            assert listens(server.process.pid, server.port)
            raise ValueError(message)

    with pytest.raises(ValueError, match=message):
        fail()
    assert started[0].process.returncode is not None


def test_server_that_does_not_stop_when_asked_is_a_failure(softhsm: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.server.STOP_LIMIT", 0.5)
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', PORT)); time.sleep(600)"
    with pytest.raises(StepFailedError, match="did not stop"), serve(softhsm, sys.executable, "-c", listen, asked=True):
        pass


# --- the whole -------------------------------------------------------------------------------------------------------


def test_main_passes_writes_json_and_removes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    record = tmp_path / "result.json"
    assert main(["--softhsm", "--only", "list-keys", "--json", str(record)]) == 0
    result = json.loads(record.read_text())
    names = [step["name"] for step in result["steps"]]
    assert names == ["token", "database", "add-module", "rsa-key", "ec-key", "list-keys"]
    assert result["passed"] is True
    assert {step["result"] for step in result["steps"]} == {"ok"}
    assert "PASSED: all 6 steps" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_main_fails_shows_the_output_and_how_to_repeat_the_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("demo.tokens.SOFTHSM_LIMITS", {})
    assert main(["--softhsm", "--only", "curve25519"]) == 1
    said = capsys.readouterr().out
    assert "FAILED: 1 of 4 steps failed" in said
    assert "unable to generate key(s)" in said
    assert "-m demo --softhsm --keep --only curve25519" in said


def test_known_limit_of_a_peer_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--softhsm", "--only", "curve25519"]) == 0
    assert "AS EXPECTED: 3 of 4 steps passed" in capsys.readouterr().out


def test_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no-such-step"]) == 2
    assert "no-such-step" in capsys.readouterr().err


def test_account_shows_no_pin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--softhsm", "--only", "jar"]) == 0
    said = capsys.readouterr().out
    assert "$PIN" in said
    assert "demo-pin-7" not in said


def test_softhsm_fails_only_where_it_is_known_to() -> None:
    assert main(["--softhsm", "--brief"]) == 0


def test_two_demos_at_once_do_not_meet() -> None:
    command = [sys.executable, "-m", "demo", "--softhsm", "--brief", "--only", "tls13-ec-client", "--only", "revoke"]
    demos = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [demo.communicate(timeout=120)[0] for demo in demos]
    assert [demo.returncode for demo in demos] == [0, 0], said


def test_terminated_demo_stops_its_tools_and_removes_its_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo", "--softhsm", "--only", "tls-load-ec"]
    demo = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    folder = ""
    children: list[str] = []
    deadline = time.monotonic() + 30
    while not any("selfserv" in name for name in children) and time.monotonic() < deadline:
        folder = next((str(path) for path in tmp_path.iterdir()), "")
        children = processes_in(folder) if folder else []
        time.sleep(0.02)
    assert any("selfserv" in name for name in children), "the server never started"
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(20) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert processes_in(folder) == []


def processes_in(folder: str) -> list[str]:
    """Command lines of the processes whose working directory is ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).removesuffix(" (deleted)") == folder:
                found.append((process / "cmdline").read_text())
        except OSError:  # it has just ended
            continue
    return found


# --- the list of steps -----------------------------------------------------------------------------------------------


def test_sentences_fit_on_a_line_of_80_columns() -> None:
    assert [step.name for step in all_steps().values() if len(step.sentence) > 62] == []


def test_limits_name_steps_that_exist(softhsm: Stage) -> None:
    assert set(softhsm.token.limits) <= set(all_steps())


def test_every_step_names_its_rules() -> None:
    assert [step.name for step in all_steps().values() if not step.rules] == []


def test_steps_chosen_bring_those_they_need() -> None:
    chosen = [step.name for step in with_needs(all_steps(), ["round-trip"])]
    assert chosen == ["token", "database", "add-module", "ca", "export-aes", "round-trip"]


def test_database_of_the_stage_is_its_own(softhsm: Stage) -> None:
    softhsm.show("database")
    said = softhsm.run("certutil", "-K", "-d", DATABASE, code=255)
    assert "no keys found" in said.output
    assert softhsm.token.environment["HOME"] == str(softhsm.folder)
