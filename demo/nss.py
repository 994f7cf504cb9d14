"""Run NSS's command-line tools: no terminal to ask on, a time limit on every one, and a record of what each said.

All tools run in the demo's own folder, so that commands are short, file names are relative, and a kept folder
(``--keep``) lets any command be repeated by hand. A tool that hangs is killed with everything it started and counts as
failed.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import termios
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TIME_LIMIT = 30.0  # seconds for one tool; the slowest (RSA key generation) needs about one
POLL = 0.02  # seconds between two looks at a terminal
PATIENCE = 2.0  # seconds after which a prompt is answered although the echo is on
PROMPTS = (b"Enter Password or Pin", b"Enter password")  # what an NSS tool writes before it reads a PIN from a terminal


class StepFailedError(Exception):
    """A step did not show what it should; ``outcome`` is the tool's, where one is to blame."""

    def __init__(self, message: str, outcome: Outcome | None = None) -> None:
        """Take one plain sentence, and the run of the tool that it is about."""
        super().__init__(message)
        self.outcome = outcome


def require(condition: object, message: str, outcome: Outcome | None = None) -> None:
    """Fail the step with ``message`` unless ``condition`` holds (asserts vanish under ``python -O``)."""
    if not condition:
        raise StepFailedError(message, outcome)


@dataclass(slots=True)
class Outcome:
    """One finished run of a tool; ``code`` is None when it was killed at the time limit."""

    command: tuple[str, ...]
    code: int | None
    output: str
    seconds: float
    principal: bool = False  # the command that the account shows for its step

    def shown(self, hidden: Mapping[str, str]) -> str:
        """Give the command as a person would type it in the folder; a secret is replaced by its variable's name."""
        words = (f"${hidden[word]}" if word in hidden else shlex.quote(word) for word in self.command)
        return " ".join(words)


@dataclass(slots=True)
class Tools:
    """Runs tools in ``folder`` with ``environment``, and keeps a transcript of what ran."""

    folder: Path
    environment: dict[str, str]
    transcript: list[Outcome] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(
        self,
        *command: str,
        stdin: str | bytes = b"",
        code: int | None = 0,
        time_limit: float = TIME_LIMIT,
        principal: bool = False,
    ) -> Outcome:
        """Run a tool to its end and require its exit code (``code=None``: any, but it must end by itself)."""
        start = time.monotonic()
        process = self.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            output, _ = process.communicate(stdin.encode() if isinstance(stdin, str) else stdin, timeout=time_limit)
        except subprocess.TimeoutExpired:
            kill(process)
            output, _ = process.communicate()
            return self._judge(command, None, output, start, code, principal)
        except BaseException:
            kill(process)
            raise
        return self._judge(command, process.returncode, output, start, code, principal)

    def run_on_terminal(
        self, *command: str, answer: str, code: int | None = 0, time_limit: float = TIME_LIMIT, principal: bool = False
    ) -> Outcome:
        """Run a tool that insists on a terminal for the PIN (crlutil, pk1sign): ``answer`` is typed at each prompt."""
        start = time.monotonic()
        outer, inner = pty.openpty()
        try:
            process = self.start(*command, stdin=inner, stdout=inner, terminal=True)
        finally:
            os.close(inner)
        try:
            output, ended = converse(outer, answer.encode() + b"\n", start + time_limit)
            if ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, start + time_limit - time.monotonic()))
            returned = process.poll()
        finally:
            kill(process)
            os.close(outer)
        return self._judge(command, returned, output, start, code, principal)

    def start(self, *command: str, stdin: int, stdout: int, terminal: bool = False) -> subprocess.Popen[bytes]:
        """Start a tool in a session of its own: it has no terminal to prompt on (or just the pseudo-terminal given)."""
        if shutil.which(command[0], path=self.environment["PATH"]) is None:
            raise StepFailedError(f"{command[0]} is not installed")
        # It dies with this process, even by kill -9. NSS's tools prompt on /dev/tty: they get a terminal of their own,
        # or none. (With one, setsid makes the session instead of Popen, because only it can take the terminal.)
        guard = ("setpriv", "--pdeathsig", "KILL", *(("setsid", "--ctty") if terminal else ()))
        process = subprocess.Popen(
            [*guard, *command],
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=not terminal,
        )
        self.started.append(process)
        return process

    def kill_all(self) -> None:
        """End every tool that still runs, for whatever reason the demo itself ends."""
        for process in self.started:
            kill(process)

    def _judge(
        self,
        command: Sequence[str],
        returned: int | None,
        output: bytes,
        start: float,
        code: int | None,
        principal: bool,
    ) -> Outcome:
        """Record a finished run, and fail the step unless it ended by itself with the exit code expected."""
        seconds = time.monotonic() - start
        outcome = Outcome(tuple(command), returned, output.decode(errors="replace"), seconds, principal)
        self.transcript.append(outcome)
        if returned is None:
            raise StepFailedError(f"{command[0]} hung and was killed after {seconds:.0f} s", outcome)
        if returned < 0:
            raise StepFailedError(f"{command[0]} died of signal {signal.Signals(-returned).name}", outcome)
        if code is not None and returned != code:
            raise StepFailedError(f"{command[0]} ended with exit code {returned} instead of {code}", outcome)
        return outcome

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Outcome]]:
        """Give a list that holds, at the end of the block, what ran inside it."""
        before = len(self.transcript)
        inside: list[Outcome] = []
        try:
            yield inside
        finally:
            inside.extend(self.transcript[before:])


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a tool and whatever it started; harmless if it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def converse(terminal: int, answer: bytes, deadline: float) -> tuple[bytes, bool]:
    """Read a pseudo-terminal until its other side is closed, answering prompts; also say whether that was in time.

    A tool that prompts turns the echo off afterwards and throws away what was typed before: only then it is answered.
    """
    output = b""
    answered = 0
    prompted = 0.0
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], POLL)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # EIO: the tool has closed its end
                return output, True
            output += piece
            prompted = time.monotonic()
        asked = sum(output.count(prompt) for prompt in PROMPTS)
        if asked > answered and (not echoes(terminal) or time.monotonic() > prompted + PATIENCE):
            os.write(terminal, answer)
            answered = asked
    return output, False


def echoes(terminal: int) -> bool:
    """Say whether a pseudo-terminal shows what is typed."""
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
