"""The module's log: one line per event that a person may want to know, appended to a file, never to stdout.

Standard logging is not used: it costs 3 ms of every C_Initialize and a host that is Python itself has its own set-up.
A line that cannot be written is dropped: a full disk, or memory, must not turn a signature into an error. Lines never
hold secrets: callers pass numbers, names and reasons only.
"""

from __future__ import annotations

import os
import time

from keyfob import files

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "off": 4}
MAX_BYTES = 1 << 20

_path: str | None = None
_threshold = LEVELS["info"]


def configure(path: str | None, level: str = "info") -> None:
    """Where lines go (None: nowhere) and from which level on. Unknown levels count as "info"."""
    global _path, _threshold  # one log per process, as there is one module per process
    _path = path
    _threshold = LEVELS.get(level, LEVELS["info"])


def line(level: str, text: str) -> None:
    """Append `2026-11-23T16:00:00Z [pid] level text`; a file past 1 MiB is moved to *.1 first."""
    if _path is None or LEVELS[level] < _threshold:
        return
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        printable = "".join(c if c.isprintable() else "?" for c in text)
        descriptor = files.append(_path)
        try:
            files.write(descriptor, f"{stamp} [{os.getpid()}] {level} {printable}\n".encode())
            if os.fstat(descriptor).st_size > MAX_BYTES:
                os.replace(_path, _path + ".1")
        finally:
            os.close(descriptor)
    except (OSError, MemoryError):
        return
