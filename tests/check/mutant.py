"""Mutants: modules that forward to keyfob and break one rule of NSS (mutants/*.c), and runs of the checker on them."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from click.testing import CliRunner

from keyfob.cli import keyfob
from keyfob.nss.model import Report, Verdict
from keyfob.nss.options import Options
from keyfob.nss.runner import run, select_scenarios
from keyfob.nss.scenarios import scenarios
from tests.abi.stub_module import compiler
from tests.conftest import CHEAP_PINS, module_path
from tests.robustness.hosts import header

SOURCES = Path(__file__).with_name("mutants")
PIN, SO_PIN = "13572468", "86427531"
COMMAND = f"{shlex.quote(sys.executable)} -P -m keyfob.cli"
LIMIT = 8.0
"""Seconds that a mutant may hang in one call."""
BROKEN = (Verdict.FAIL, Verdict.WARN)

Token = Literal["erased", "fresh", "kept", "open", "removable", "pin pad"]
"""The token of a run: one that --init erases (almost everything is tested); the one of an empty store, which has no PIN
yet; one that is left as it is (a wrong PIN is tried at the login); one that needs no login and has no PIN; one on a
stick, which is ejected and inserted; one whose PIN somebody types on the token itself."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """What the checker must say of a mutant: `must` fail or warn, all of them; `may` besides, being the same fact."""

    must: frozenset[str]
    may: frozenset[str]
    token: Token


def caught(*must: str, may: str = "", token: Token = "erased") -> Mutant:
    """A row of the table; `may` are rules separated by blanks."""
    return Mutant(frozenset(must), frozenset(may.split()), token)


def compile_mutants(folder: Path) -> Path:
    """The library that is every mutant, as KEYFOB_MUTANT names it."""
    (folder / "cryptoki.h").write_text(header())
    library = folder / "mutants.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    subprocess.run([compiler(), *flags, "-o", library, *sorted(SOURCES.glob("*.c")), "-ldl"], check=True)
    return library


def names(library: Path) -> list[str]:
    """The mutants' names, as the library has them."""
    with environment(KEYFOB_MUTANT=None, KEYFOB_MUTANT_OF=None):
        loaded = ctypes.CDLL(str(library))
    loaded.mutant_name.restype = ctypes.c_char_p
    loaded.mutant_name.argtypes = [ctypes.c_size_t]
    found: list[str] = []
    while (name := loaded.mutant_name(len(found))) is not None:
        found.append(name.decode())
    return found


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Within, these variables have these values; None takes one away."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def checked(library: Path, name: str | None, token: Token, home: Path, *only: str) -> Report:
    """The whole run of the checker on a mutant (None: the shim that breaks nothing), with a token of its own.

    `only` names the scenarios of a run that is not whole.
    """
    home.mkdir()
    (home / "config.toml").write_text(CHEAP_PINS)
    with environment(KEYFOB_HOME=str(home), KEYFOB_MUTANT=name, KEYFOB_MUTANT_OF=str(module_path())):
        if token != "fresh":
            _make(token, home)
        options = Options(str(library), write=True, init=token in ("erased", "fresh"), limit=LIMIT)
        options.pin = None if token in ("open", "pin pad") else PIN
        options.so_pin = SO_PIN if token in ("erased", "kept") else None
        options.pinpad = token == "pin pad"
        if token == "removable":
            options.token_label = "work"
            options.eject, options.insert = f"{COMMAND} eject work", f"{COMMAND} insert 2"
        chosen, wanted = select_scenarios(scenarios(), only, ())
        return run(chosen, options, wanted=wanted)


def _make(token: Token, home: Path) -> None:
    """Slot 1 has the only token; a removable one is in slot 2."""
    words = ["--no-pin"] if token == "open" else ["--pin", PIN, "--so-pin", SO_PIN]
    if token == "removable":
        (home / "stick").mkdir()
        words += ["--removable", str(home / "stick")]
    made = CliRunner().invoke(keyfob, ["init", "work", *words])
    assert made.exit_code == 0, made.output


def broken(report: Report) -> dict[str, str]:
    """{rule that fails or warns: what was seen}."""
    return {name: result.reason for name, result in report.results().items() if result.verdict in BROKEN}
