"""Every file of scripts/ is a session at a shell: commands, what they print, and how they end.

    # a remark
    $ keyfob init demo --pin 1234 --so-pin 123456
    Made the token 'demo' in slot 1 (multipurpose).

    $ keyfob list nothing
    keyfob: no token is called 'nothing'; *
    ? 1

`*` (or `****`) stands for any text in a line, a line `...` for any lines, `? N` for the exit code where it is not 0.
Commands that do not start with `keyfob` go to the shell. `# needs: PROGRAM ...` skips a script where one is missing.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyfob.cli import keyfob

SCRIPTS = Path(__file__).parent / "scripts"
NEEDS = re.compile(r"^# needs: (.+)$", re.MULTILINE)


class Step:
    """One command of a script, with the lines and the exit code expected of it."""

    def __init__(self, number: int, command: str) -> None:
        self.number = number
        self.command = command
        self.code = 0
        self.lines: list[str] = []

    def pattern(self) -> re.Pattern[str]:
        parts = []
        for line in self.lines:
            if line == "...":
                parts.append(r"(?:.*\n)*?")
            else:
                parts.append(re.sub(r"(?:\\\*)+", ".*", re.escape(line)) + r"\n")
        return re.compile("".join(parts))


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            found.append(Step(number, line[2:]))
        elif line.startswith("? "):
            found[-1].code = int(line[2:])
        elif found and not line.startswith("# "):
            found[-1].lines.append(line)
    for step in found:
        while step.lines and not step.lines[-1].strip():
            step.lines.pop()
    return found


def outcome(command: str) -> tuple[int, str]:
    """(exit code, everything that was printed)."""
    words = shlex.split(command)
    if words[0] == "keyfob":
        result = CliRunner().invoke(keyfob, words[1:], prog_name="keyfob")
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        return result.exit_code, result.output
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_script_goes_as_written(script: Path, folder: Path) -> None:
    text = script.read_text(encoding="utf-8")
    for program in " ".join(NEEDS.findall(text)).split():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for step in steps(text):
        code, output = outcome(step.command)
        said = "".join(line.rstrip() + "\n" for line in output.splitlines())
        where = f"{script.name}:{step.number}: {step.command}"
        assert code == step.code, f"{where}\nexit code {code} instead of {step.code}\n{said}"
        wanted = "".join(f"{line}\n" for line in step.lines)
        assert step.pattern().fullmatch(said), f"{where}\n--- printed\n{said}--- expected\n{wanted}"


def test_a_script_that_expects_something_else_fails() -> None:
    step = steps("$ keyfob --version\nkeyfob 0.*.9\n...\nthe end\n")[0]
    assert step.pattern().fullmatch("keyfob 0.1.9\na\nb\nthe end\n")
    assert not step.pattern().fullmatch("keyfob 0.1.8\na\nthe end\n")
    assert not step.pattern().fullmatch("keyfob 0.1.9\na\n")
