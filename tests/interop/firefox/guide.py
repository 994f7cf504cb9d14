"""docs/firefox.md as something to follow: its commands, typed on a terminal, and what it says that they print."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GUIDE = Path(__file__).parents[3] / "docs" / "firefox.md"
_COMMAND = "    $ "
_INDENT = "    "
_TIMEOUT = 120.0
_ECHO_OFF = 0.1
"""A prompt comes just before the terminal stops to show what is typed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the guide and the lines that it prints there; the page stands for what differs each time."""

    command: str
    shown: tuple[str, ...]

    def agrees_with(self, printed: str) -> bool:
        """Whether `printed` is what the guide shows: every line, in order, and no other."""
        lines = [line.rstrip() for line in printed.splitlines()]
        return re.fullmatch("\n".join(map(_pattern, self.shown)), "\n".join(lines).strip()) is not None


def _pattern(line: str) -> str:
    """A regular expression for a line: IDs, paths of /home/alice and versions differ; `...` is anything."""
    pattern = re.escape(line.rstrip())
    pattern = re.sub("[0-9a-f]{40}", "[0-9a-f]{40}", pattern)
    pattern = re.sub(r"/home/alice[^\s)]*[^\s).,:\\]", r"/[^\\s)]+", pattern)
    pattern = re.sub(r"Python\\ \d+\\\.\d+\\\.\d+", r"Python\\ \\d+\\.\\d+\\.\\d+", pattern)
    return pattern.replace(r"\.\.\.", ".*")


def steps(text: str) -> list[Step]:
    """The commands of the page, each with what stands below it."""
    found: list[Step] = []
    within = False
    for line in text.splitlines():
        if line.startswith(_COMMAND):
            found.append(Step(line.removeprefix(_COMMAND), ()))
            within = True
        elif within and (line.startswith(_INDENT) or not line):
            last = found[-1]
            found[-1] = Step(last.command, (*last.shown, line.removeprefix(_INDENT)))
        else:
            within = False
    return [Step(step.command, _without_the_last_blanks(step.shown)) for step in found]


def _without_the_last_blanks(lines: tuple[str, ...]) -> tuple[str, ...]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def typed(command: str, folder: Path, environment: Mapping[str, str], answers: Mapping[str, str]) -> str:
    """Type a command on a terminal, give each prompt its answer, and return what else was printed."""
    screen, inner = pty.openpty()
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        cwd=folder,
        env=dict(environment),
        start_new_session=True,
    ) as process:
        os.close(inner)
        seen, last = "", ""
        end = time.monotonic() + _TIMEOUT
        while True:
            assert time.monotonic() < end, f"{command} does not end: {seen}"
            try:
                seen += os.read(screen, 4096).decode()
            except OSError:  # nobody has the terminal open any more
                break
            for prompt, answer in answers.items():
                if seen.endswith(prompt):
                    seen = seen.removesuffix(prompt)
                    # "Repeat" asks for the same again.
                    last = answer or last
                    time.sleep(_ECHO_OFF)
                    os.write(screen, f"{last}\n".encode())
        os.close(screen)
        assert process.wait(_TIMEOUT) == 0, f"{command} ended with {process.returncode}: {seen}"
    return _plain(seen)


def _plain(seen: str) -> str:
    """What is left on the screen: without colours, and without the lines that progress was shown on."""
    text = re.sub(r"\x1b\[\?25[hl]", "", seen.replace("\r\n", "\n"))  # the cursor
    text = re.sub(r"[^\n]*\n\r?\x1b\[1A\x1b\[2K", "", text)  # up a line, and rid of it
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "\n".join(line.rpartition("\r")[2] for line in text.split("\n")).strip("\n")
