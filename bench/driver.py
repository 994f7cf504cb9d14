"""The C program p11bench: building it, and one running process of it (or of bare.py, which speaks the same lines)."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
from pathlib import Path
from typing import Any

from keyfob.spec.errors import name_of

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
SOURCES = ("p11bench.c", "scale.c", "figures.c", "commands.h", "figures.h", "p11.h")
UNSUPPORTED = frozenset(
    {
        "CKR_FUNCTION_NOT_SUPPORTED",
        "CKR_MECHANISM_INVALID",
        "CKR_MECHANISM_PARAM_INVALID",
        "CKR_ATTRIBUTE_TYPE_INVALID",
        "CKR_CURVE_NOT_SUPPORTED",
    }
)


class BenchError(Exception):
    """Something without which there is nothing to measure; the text says what to do."""


class CallError(Exception):
    """A module's call failed: `call` is the C_* function (or what was wrong), `code` the name of its CK_RV or ""."""

    def __init__(self, call: str, code: str, *, fatal: bool = False) -> None:
        super().__init__(call, code)
        self.call = call
        self.code = code
        self.fatal = fatal  # the process is gone

    @property
    def unsupported(self) -> bool:
        """The module says that it does not offer this, which is an answer and no error."""
        return self.code in UNSUPPORTED

    def __str__(self) -> str:
        return f"{self.call} {self.code}".strip()


def compile_program() -> Path:
    """Build p11bench with gcc where a source is newer than the program; the program's path."""
    program = BUILD / "p11bench"
    sources = [HERE / name for name in SOURCES]
    if program.exists() and program.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return program
    compiler = shutil.which("gcc")
    if compiler is None:
        raise BenchError("gcc is missing: apt-get install gcc libc6-dev")
    BUILD.mkdir(parents=True, exist_ok=True)
    units = [str(source) for source in sources if source.suffix == ".c"]
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), *units, "-pthread", "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise BenchError(f"gcc failed:\n{built.stderr}")
    return program


def last_line(log: Path) -> str:
    """What a process said last on standard error, in parentheses; nothing where it was silent."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"({lines[-1]})" if lines else ""


class Process:
    """One process that loaded one module. `greeting` is its first line, about the start (see p11bench.c)."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
            )
        self._buffer = b""
        try:
            self.greeting = self._answer(timeout=60)
        except CallError:
            self.kill()
            raise

    def ask(self, line: str, timeout: float = 60) -> dict[str, Any]:
        """Send one command and wait for its answer. Raises CallError if the module failed, died or did not answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CallError("the process died", last_line(self._log), fatal=True) from None
        return self._answer(timeout)

    def _answer(self, timeout: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._read_line(timeout))
        if "error" in answer:
            rv = int(answer["rv"])
            raise CallError(answer["error"], name_of("CKR", rv) if rv else "")
        return answer

    def _read_line(self, timeout: float) -> bytes:
        """One line of standard output. `timeout` in seconds is for each piece of it: the pieces are small."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(timeout):
                    self.kill()
                    raise CallError(f"no answer in {timeout:.0f} s", "", fatal=True)
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece:
                    self.kill()
                    raise CallError("the process died", last_line(self._log), fatal=True)
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def resident(self) -> int:
        """Bytes of memory that the process holds now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """Let it finalise the module and end."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(timeout=30)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
