"""Runs a program with libkeyfob-trace.so between it and its module."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keyfob import environment
from keyfob.nss.tracer import decode

LIBRARY = Path(__file__).resolve().parents[2] / "libkeyfob-trace.so"
LOOKS_EVERY = 0.1
"""Seconds between looks at what the program's calls have left."""

Take = Callable[[dict[str, Any]], None]


def variables(module: Path, lines: Path) -> dict[str, str]:
    """What makes the loader of a program give it the tracer for the module."""
    preloaded = environment.get("LD_PRELOAD")
    return {
        **environment.whole(),
        "LD_PRELOAD": f"{LIBRARY}:{preloaded}" if preloaded else str(LIBRARY),
        "KEYFOB_TRACE_MODULE": str(module),
        "KEYFOB_TRACE_FILE": str(lines),
    }


def run(program: Sequence[str], module: Path, take: Take) -> int:
    """Run the program to its end and give each call to `take` soon after it ended; the program's exit code.

    Ctrl-C is the program's: it may want to end in its own way. FileNotFoundError, PermissionError: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="keyfob-trace-") as folder:
        lines = Path(folder, "calls")
        lines.touch(mode=0o600)
        process = subprocess.Popen(program, env=variables(module, lines))
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with lines.open(encoding="utf-8", errors="replace") as file:
                for call in decode.lines(_grown(file.readline, process)):
                    take(call)
        finally:
            signal.signal(signal.SIGINT, ours)
            if process.poll() is None:  # `take` raised
                process.terminate()
                process.wait()
        code = process.returncode
    return 128 - code if code < 0 else code


def _grown(readline: Callable[[], str], process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Whole lines as they come, until the program has ended and nothing is left."""
    part = ""
    while True:
        ended = process.poll() is not None
        while line := readline():
            part += line
            if part.endswith("\n"):
                yield part
                part = ""
        if ended:
            return
        time.sleep(LOOKS_EVERY)
