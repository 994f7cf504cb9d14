"""The report on a terminal: 80 columns, no need of colour, nothing of the module's that could steer it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from keyfob.nss.report import terminal
from tests.check.reports import hostile_report

if TYPE_CHECKING:
    from pathlib import Path

    from tests.check.conftest import Build

COMMAND = [sys.executable, "-P", "-m", "keyfob.cli", "check"]


def shown(width: int = 80) -> str:
    out = io.StringIO()
    terminal.show(hostile_report(), Console(file=out, width=width, highlight=False))
    return out.getvalue()


def test_no_line_is_wider_than_the_terminal() -> None:
    assert max(map(len, shown().splitlines())) <= 80


def test_names_of_the_module_cannot_steer_the_terminal() -> None:
    text = shown()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "onerror=alert(1)" in text.replace("\n", "").replace(" ", "")


def test_markup_in_names_is_no_markup() -> None:
    report = hostile_report()
    report.facts["info"]["description"] = "[red]module[/red] [/nonsense]"
    report.scenarios[0].findings[0].saw = "answered [bold]nothing[/bold]"
    out = io.StringIO()
    terminal.show(report, Console(file=out, width=100))
    assert "[red]module[/red]" in out.getvalue()
    assert "[bold]nothing[/bold]" in out.getvalue()


def run(module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, module, "--only", "load"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}])
def test_into_a_pipe_goes_text_alone(build: Build, environment: dict[str, str]) -> None:
    done = run(build("CRASH"), COLUMNS="80", **environment)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "A module never crashes its host" in done.stdout
    assert max(map(len, done.stdout.splitlines()[3:])) <= 80


def on_a_terminal(module: str, folder: Path, **environment: str) -> tuple[str, bytes]:
    """(standard output, what came to a terminal on standard error)."""
    master, slave = pty.openpty()
    out = folder / "out.txt"
    with out.open("wb") as file:
        child = subprocess.Popen(
            [*COMMAND, module, "--only", "load"], env={**os.environ, **environment}, stdout=file, stderr=slave
        )
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(master)
    child.wait(timeout=60)
    return out.read_text(), seen


def test_progress_goes_to_standard_error_only(build: Build, tmp_path: Path) -> None:
    said, seen = on_a_terminal(build("NOTHING"), tmp_path, TERM="xterm", COLUMNS="80")
    assert b"load" in seen
    assert "\x1b" not in said
    assert "1/4" not in said


def test_a_dumb_terminal_gets_no_control_sequences(build: Build, tmp_path: Path) -> None:
    _said, seen = on_a_terminal(build("NOTHING"), tmp_path, TERM="dumb", COLUMNS="80")
    assert b"\x1b" not in seen
