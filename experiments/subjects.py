"""What is experimented on: a module with a token, copied afresh for each trial; the host that uses it (host.c)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.modules import PIN, SO_PIN, Module, Token
from keyfob.abi.cryptoki import DECLARATIONS
from keyfob.spec import constants
from keyfob.spec.errors import name_of

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "experiments"
CHEAP_PINS = "[pin]\nmemory_kib = 8192\niterations = 1\ndelay = false\n"
"""For what is not about PINs: keyfob's login takes 10 ms instead of 100."""
HANG = 90
"""Seconds after which a host hangs (it gives itself less, host.c)."""
PREFIXES = ("CKA", "CKF", "CKK", "CKM", "CKO", "CKR", "CKU")
OK = "0"


class Refused(Exception):  # noqa: N818 - an answer: the module does not offer this
    """A call without which there is no experiment failed: "C_InitToken: CKR_..."."""


def compiled(source: str, *flags: str) -> Path:
    """A C program (or with "-shared" a library) of this room, built where its source is newer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    made, path = BUILD / Path(source).with_suffix(".so" if "-shared" in flags else ""), HERE / source
    if made.exists() and made.stat().st_mtime > path.stat().st_mtime:
        return made
    lines = ["#ifndef CRYPTOKI_H", "#define CRYPTOKI_H", DECLARATIONS]
    for prefix in PREFIXES:
        table = vars(getattr(constants, prefix))
        lines += [f"#define {prefix}_{name} {value}UL" for name, value in table.items() if isinstance(value, int)]
    (BUILD / "cryptoki.h").write_text("\n".join([*lines, "#endif", ""]))
    fresh = made.with_name(f"{made.name}.{os.getpid()}")
    options = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{BUILD}", *flags]
    subprocess.run(["gcc", *options, "-o", str(fresh), str(path), "-ldl", "-pthread"], check=True)
    fresh.replace(made)
    return made


@dataclass(frozen=True)
class Subject:
    """A module and a token in `folder`. `environment` leads a process to it, `prefix` is put before the host."""

    name: str
    title: str
    path: Path
    folder: Path
    token: Token
    prefix: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def copy(self, folder: Path) -> Subject:
        """The same token somewhere else; what was in `folder` is gone."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        before, after = str(self.folder), str(folder)
        configuration = folder / "softhsm2.conf"
        if configuration.exists():
            configuration.write_text(configuration.read_text().replace(before, after))
        parameters = self.token.parameters
        token = replace(
            self.token,
            environment={name: value.replace(before, after) for name, value in self.token.environment.items()},
            parameters=parameters and parameters.replace(before, after),
        )
        variables = {name: value.replace(before, after) for name, value in self.variables.items()}
        return replace(self, folder=folder, token=token, variables=variables)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The host with a command of its, its lines to be read and written by the caller."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        words = [str(self.path), self.token.label, self.token.parameters or "-", *arguments]
        return subprocess.Popen(
            [*self.prefix, str(compiled("host.c")), *words],
            env=clean | self.token.environment | self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *arguments: str, limit: float = HANG) -> Run:
        """A command that ends by itself."""
        return ended(self.start(*arguments), limit)

    def log(self) -> str:
        """What the module has written to its log (keyfob's; the others have the system's)."""
        path = self.folder / "keyfob.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def files(self) -> list[Path]:
        """What holds the token's objects."""
        if self.name == "softoken":
            return [self.folder / "cert9.db", self.folder / "key4.db"]
        folder = self.folder / "tokens"
        return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("lock", "-shm")))


@dataclass(frozen=True)
class Run:
    """What a host said, and how it ended: "ended", "crashed" (by a signal) or "hung"."""

    lines: list[str]
    end: str

    def word(self, first: str) -> str | None:
        """The rest of the first line that begins so."""
        return next((line[len(first) + 1 :] for line in self.lines if line.split(" ")[0] == first), None)

    def rv(self, first: str) -> str:
        """The name of the CK_RV that a line gives; how the host ended where there is no such line."""
        found = self.word(first)
        if found is not None:
            return name_of("CKR", int(found.split()[-1]))
        failed = self.word("failed")
        if failed is not None:
            call, rv = failed.split()
            return f"{call}: {name_of('CKR', int(rv))}"
        return "no token" if "no-slot" in self.lines else self.end

    def demand(self) -> Run:
        """Itself; Refused where the host could not do what it was for."""
        if self.end != "ended":
            raise Refused(self.end)
        if self.word("failed") is not None:
            raise Refused(self.rv("-"))
        return self


def ended(process: subprocess.Popen[str], limit: float, given: str | None = None) -> Run:
    """Wait for the end of a host; one that takes longer is killed."""
    try:
        output, _ = process.communicate(given, timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return Run(output.splitlines(), "hung")
    status = process.returncode
    end = "hung" if status == -signal.SIGALRM else "crashed" if status < 0 else "ended"
    return Run(output.splitlines(), end)


def prepare(module: Module, folder: Path, *, cheap: bool = True) -> Subject:
    """A fresh token of a module, with a pair and a key named "kept-*"."""
    folder.mkdir(parents=True)
    if cheap and module.name == "keyfob":
        (folder / "config.toml").write_text(CHEAP_PINS)
    subject = Subject(module.name, module.title, module.path, folder, module.prepare(folder))
    subject.run("populate", PIN, "kept", "1").demand()
    return subject


__all__ = ["BUILD", "CHEAP_PINS", "PIN", "SO_PIN", "Refused", "Run", "Subject", "compiled", "ended", "prepare"]
