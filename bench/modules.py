"""The modules that are compared: where each is found, how it gets a fresh token, and what it needs to be told."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .driver import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = "bench"
PIN = "1234-user"
SO_PIN = "5678-officer"
SOFTOKEN_LABEL = "NSS Certificate DB"  # the token name that softoken gives to its key database


@dataclass(frozen=True)
class Token:
    """A fresh token: what a process needs to see it. `parameters` is the string for C_Initialize (softoken only)."""

    label: str
    environment: dict[str, str] = field(default_factory=dict)
    parameters: str | None = None


@dataclass(frozen=True)
class Module:
    """A PKCS #11 module. `prepare` makes a fresh token in an empty folder; its PIN is PIN."""

    name: str
    title: str
    path: Path
    package: str | None
    prepare: Callable[[Path], Token]


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    settings = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=settings)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{Path(command[0]).name} cannot be run: {error}") from None
    if done.returncode:
        raise BenchError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _keyfob_program() -> Path:
    return Path(sys.executable).parent / "keyfob"


def _prepare_keyfob(folder: Path) -> Token:
    environment = {"KEYFOB_HOME": str(folder), "KEYFOB_STORE": ""}
    _run([str(_keyfob_program()), "init", LABEL, "--pin", PIN, "--so-pin", SO_PIN], environment)
    return Token(LABEL, environment)


def on_postgresql(url: str) -> Module | None:
    """keyfob with its token in this prepared database, where a token called LABEL makes room for a new one."""

    def prepare(folder: Path) -> Token:
        environment = {"KEYFOB_HOME": str(folder), "KEYFOB_STORE": url}
        keyfob = str(_keyfob_program())
        if LABEL in _run([keyfob, "list"], environment):
            _run([keyfob, "delete", LABEL, "--token", "--yes"], environment)
        _run([keyfob, "init", LABEL, "--pin", PIN, "--so-pin", SO_PIN], environment)
        return Token(LABEL, environment)

    library = _keyfob_library()
    return None if library is None else Module("postgresql", "keyfob/PG", library, None, prepare)


def _prepare_softhsm(folder: Path) -> Token:
    tokens = folder / "tokens"
    tokens.mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(configuration)}
    _run(
        ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN],
        environment,
    )
    return Token(LABEL, environment)


def _prepare_softoken(folder: Path) -> Token:
    password = folder / "password"
    password.write_text(PIN + "\n")
    password.chmod(0o600)
    _run(["certutil", "-N", "-d", f"sql:{folder}", "-f", str(password)])
    parameters = f"configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    return Token(SOFTOKEN_LABEL, parameters=parameters)


def _library(name: str, *folders: str) -> Path | None:
    """The first of the places where distributions put this library (not those of browsers, which bring their own)."""
    for folder in folders:
        for found in sorted(Path("/").glob(f"{folder}/{name}")):
            return found
    return None


def _keyfob_library() -> Path | None:
    program = _keyfob_program()
    return Path(_run([str(program), "module-path"]).strip()) if program.exists() else None


def installed() -> tuple[list[Module], list[str]]:
    """The modules that this machine has, and for each absent one a line that says how to get it."""
    candidates = (
        ("keyfob", "keyfob", _keyfob_library(), None, _prepare_keyfob, "make build"),
        (
            "softhsm",
            "SoftHSM 2",
            _library("libsofthsm2.so", "usr/lib/softhsm", "usr/lib/*-linux-gnu/softhsm", "usr/lib64"),
            "libsofthsm2",
            _prepare_softhsm,
            "apt-get install softhsm2",
        ),
        (
            "softoken",
            "softoken",
            _library("libsoftokn3.so", "usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nss", "usr/lib64"),
            "libnss3",
            _prepare_softoken,
            "apt-get install libnss3 libnss3-tools",
        ),
    )
    present = [
        Module(name, title, path, package, prepare)
        for name, title, path, package, prepare, _ in candidates
        if path is not None
    ]
    absent = [f"{title} is not installed ({remedy})" for _, title, path, _, _, remedy in candidates if path is None]
    return present, absent
