"""What the tests of the command-line tool share: a home of their own, and a way to call it in this process."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from keyfob.cli import keyfob

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., Result]

CHEAP_PINS = "[pin]\nmemory_kib = 8192\niterations = 1\ndelay = false\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, whose KEYFOB_HOME is `home` beside it."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(CHEAP_PINS)
    monkeypatch.setenv("KEYFOB_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(folder: Path) -> Run:
    """`run("list work", code=0)`: the result of `keyfob list work`, whose exit code must be the given one."""

    def call(line: str, *, code: int | None = 0, given: str = "") -> Result:
        result = CliRunner().invoke(keyfob, shlex.split(line), input=given, prog_name="keyfob")
        assert code in (None, result.exit_code), f"exit code {result.exit_code}: {result.output}{result.exception!r}"
        return result

    return call
