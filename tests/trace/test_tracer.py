"""`keyfob trace` between real programs and real modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import module_path
from tests.interop.programs import program
from tests.interop.tokens import Module
from tests.robustness.hosts import REPOSITORY, environment
from tests.robustness.test_secrets import holders, secrets

KEYFOB = Path(sys.executable).with_name("keyfob")
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
# Not masked: what is signed and with which parameters is what one traces for, and labels name things.
SHOWN = ["public", "label", "data", "plaintext", "shared", "rsa_MODULUS"]
# The host gives these, by mistake on purpose, where a public point or a modulus belongs, which are shown.
SHOWN += ["generic", "ec", "rsa_PRIVATE_EXPONENT"]


def traced(command: list[str], folder: Path, *options: str, **more: str) -> tuple[int, list[dict[str, Any]], str]:
    """(exit code, calls, what the program and keyfob printed)."""
    output = folder / "calls.jsonl"
    done = subprocess.run(
        [str(KEYFOB), "trace", "--output", str(output), *options, "--", *command],
        cwd=REPOSITORY,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    calls = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    return done.returncode, calls, done.stdout + done.stderr


def names(calls: list[dict[str, Any]]) -> list[str]:
    return [call["function"] for call in calls]


@pytest.mark.interop
def test_every_call_of_certutil_is_written_down(home: Path, tmp_path: Path) -> None:
    database = f"sql:{tmp_path}"
    certutil, modutil = program("certutil", "libnss3-tools"), program("modutil", "libnss3-tools")
    pin = "planted-trace-pin"
    subprocess.run([KEYFOB, "init", "traced", "--pin", pin, "--so-pin", "so-pin-1"], check=True, capture_output=True)
    subprocess.run([certutil, "-N", "-d", database, "--empty-password"], check=True)
    add = [modutil, "-dbdir", database, "-force", "-add", "keyfob", "-libfile", str(module_path())]
    subprocess.run(add, check=True, capture_output=True)
    (tmp_path / "pins").write_text(f"traced:{pin}\n")
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    command = [certutil, "-S", "-d", database, "-h", "traced", "-n", "me", "-s", "CN=me", "-x", "-t", "u,u,u"]
    command += ["-k", "rsa", "-f", str(tmp_path / "pins"), "-z", str(tmp_path / "noise"), "-m", "1"]
    code, calls, output = traced(command, tmp_path, "--show")
    assert code == 0, output
    seen = names(calls)
    assert seen[:3] == ["C_GetInterface", "C_GetInterface", "C_Initialize"]
    assert seen[-2:] == ["C_CloseAllSessions", "C_Finalize"]
    assert [call["number"] for call in calls] == list(range(1, len(calls) + 1))
    generate = next(call for call in calls if call["function"] == "C_GenerateKeyPair")
    assert "CKA_MODULUS_BITS=2048" in generate["arguments"][2]["text"]
    assert generate["rv_name"] == "CKR_OK"
    assert "C_GenerateKeyPair(hSession=" in output
    assert pin not in output + json.dumps(calls)


@pytest.mark.interop
def test_a_module_of_version_2_40_is_traced_as_one(tmp_path: Path) -> None:
    tool = program("pkcs11-tool", "opensc")
    program("softhsm2-util", "softhsm2")
    more = Module("softhsm", SOFTHSM, Path("softhsm2-util")).home(tmp_path / "softhsm")
    command = [tool, "--module", str(SOFTHSM), "-L"]
    code, calls, output = traced(command, tmp_path, "--module", str(SOFTHSM), **more)
    assert code == 0, output
    assert "C_GetSlotInfo" in names(calls)
    door = calls[0]
    assert {"name": "version", "text": '"2.40"'} in door["out"]
    untraced = subprocess.run(command, env=environment(**more), capture_output=True, text=True, check=True).stdout
    assert untraced in output


def test_the_program_s_exit_code_is_passed_on(home: Path, tmp_path: Path) -> None:
    code, calls, output = traced([sys.executable, "-c", "raise SystemExit(7)"], tmp_path)
    assert (code, calls) == (7, [])
    assert "made no call" in output


def test_a_program_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    code, _, output = traced(["no-such-program"], tmp_path)
    assert code == 1
    assert "no-such-program: No such file" in output


def test_calls_of_a_killed_program_are_kept(home: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys; from tests.client import Client\n"
        "client = Client(sys.argv[1]); client.initialize(); client.slots(); os.kill(os.getpid(), 9)"
    )
    code, calls, output = traced([sys.executable, "-c", script, str(module_path())], tmp_path)
    assert code == 128 + 9, output
    assert names(calls)[-2:] == ["C_GetSlotList", "C_GetSlotList"]


def test_threads_and_forked_processes_are_told_apart(home: Path, tmp_path: Path) -> None:
    """The checker itself is the program: it forks, and races two threads."""
    names_of = ["load: threads", "events: fork"]
    subprocess.run([KEYFOB, "init", "traced", "--pin", "trace-pin", "--so-pin", "so-pin-1"], check=True)
    only = [word for name in names_of for word in ("--only", name)]
    code, calls, output = traced([str(KEYFOB), "check", str(module_path()), *only], tmp_path)
    assert code == 0, output
    assert [call["number"] for call in calls] == list(range(1, len(calls) + 1))
    # One process a scenario, and the forked one.
    assert len({call["process"] for call in calls}) == len(names_of) + 1
    initialized = [call for call in calls if call["function"] == "C_Initialize"]
    assert len({call["thread"] for call in initialized}) > len(names_of)
    in_the_child = {call["process"] for call in calls if call["rv_name"] == "CKR_CRYPTOKI_NOT_INITIALIZED"}
    assert len(in_the_child) == 1


def test_no_secret_gets_into_a_trace(home: Path, tmp_path: Path) -> None:
    planted = secrets()
    hidden = {name: value for name, value in planted.items() if name not in SHOWN}
    (tmp_path / "secrets").write_text(json.dumps({name: value.hex() for name, value in planted.items()}))
    script = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'tests.robustness.keep_secrets', sys.argv[1]],"
        " stdin=open(sys.argv[2]), check=True)"
    )
    code, calls, output = traced(
        [sys.executable, "-c", script, str(module_path()), str(tmp_path / "secrets")], tmp_path, "--show"
    )
    assert code == 0, output
    assert len(calls) > 100
    places = {"trace": (tmp_path / "calls.jsonl").read_bytes(), "output": output.encode()}
    assert holders(places, hidden) == set()
    assert ("trace", "public") in holders(places, planted)  # the search would have found them


def test_a_trace_becomes_a_page_that_needs_nothing_else(home: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.client import Client; c = Client(sys.argv[1]); c.initialize(); c.open(c.slots()[0])"
    )
    page = tmp_path / "calls.html"
    command = [sys.executable, "-c", script, str(module_path())]
    code, calls, output = traced(command, tmp_path, "--html", str(page))
    assert code == 0, output
    text = page.read_text()
    assert text.count("<rect class=") - text.count('<rect class="band') == len(calls)
    for call in calls:
        assert f'href="#call-{call["number"]}"' in text
        assert f'<tr id="call-{call["number"]}"' in text
    assert "http://" not in text
    assert "https://" not in text
    assert "src=" not in text
