"""A pinentry program for tests: does what a script says, and tells what it was told.

`fake(folder, *answers)` makes the program; its answers to one GETPIN after the other, over all its runs, are: a text
(the PIN), `cancel`, `error`, `wait` (never answer, and ignore SIGTERM), `die`, `noise` (a PIN among other lines).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROGRAM = """#!{python} -I
import json, os, signal, sys, time
folder, options = {folder!r}, {options!r}

def note(**more):
    with open(os.path.join(folder, "told"), "a") as file:
        file.write(json.dumps(more) + "\\n")

def say(*lines):
    for line in lines:
        os.write(1, line.encode("utf-8") + b"\\n")

descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
note(start=os.getpid(), descriptors=descriptors, arguments=sys.argv[1:], terminal=os.environ.get("GPG_TTY"),
     display=os.environ.get("DISPLAY"), child=str(signal.getsignal(signal.SIGCHLD)),
     blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
say("OK Pleased to meet you")
repeat = False
for line in sys.stdin:
    command, _, argument = line.rstrip("\\n").partition(" ")
    note(command=command, argument=argument)
    if command == "SETREPEAT":
        if "old" in options:
            say("ERR 83886355 unknown command")
            continue
        repeat = True
    if command == "BYE":
        say("OK")
        break
    if command != "GETPIN":
        say("OK")
        continue
    with open(os.path.join(folder, "answers")) as file:
        first, *rest = json.load(file)
    with open(os.path.join(folder, "answers"), "w") as file:
        json.dump(rest, file)
    if first == "cancel":
        say("ERR 83886179 Operation cancelled <Pinentry>")
    elif first == "error":
        say("ERR 83886340 No pinentry <Pinentry>")
    elif first == "die":
        os._exit(3)
    elif first == "wait":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(waiting=True)
        time.sleep(60)
    elif first == "noise":
        say("# a comment", "S SOMETHING", "INQUIRE QUALITY", "D user-", "D pin%2D1", "OK")
    else:
        special = b"%\\r\\n" + bytes(range(127, 256))
        escaped = "".join(f"%{{byte:02X}}" if byte in special else chr(byte) for byte in first.encode())
        say(*(["S PIN_REPEATED"] if repeat else []), *([f"D {{escaped}}"] if first else []), "OK")
"""


class Fake:
    """`program`: its path; `told`: what it noted, in order."""

    def __init__(self, folder: Path, answers: list[str], options: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.program = folder / "pinentry-fake"
        self.program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder), options=options))
        self.program.chmod(0o755)
        self.answer(*answers)

    def answer(self, *answers: str) -> None:
        (self.folder / "answers").write_text(json.dumps(answers))

    @property
    def told(self) -> list[dict[str, Any]]:
        path = self.folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def arguments(self, command: str) -> list[str]:
        """What all runs were told with this command."""
        return [note["argument"] for note in self.told if note.get("command") == command]

    @property
    def processes(self) -> list[int]:
        return [note["start"] for note in self.told if "start" in note]


def fake(folder: Path, *answers: str, options: str = "") -> Fake:
    """`options`: "old", a program that does not know SETREPEAT."""
    return Fake(folder / "pinentry", list(answers), options)
