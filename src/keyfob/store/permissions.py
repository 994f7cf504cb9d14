"""Files of a token are its owner's alone: 0600, in a folder of 0700. What is laxer is mended, and the log says so."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OTHERS = 0o077


def tighten(path: str, log: Callable[[str], None]) -> None:
    """Take away what others may do with a file or a folder; a line where that was so, and where it stays so."""
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError:
        return
    if not mode & OTHERS:
        return
    text = f"{path} was open to other users of this machine (mode {mode:04o})"
    try:
        os.chmod(path, mode & ~OTHERS)
        closed = not os.stat(path).st_mode & OTHERS
    except OSError as problem:
        log(f"{text} and cannot be closed to them: {problem.strerror}")
        return
    log(f"{text}: it is {mode & ~OTHERS:04o} now" if closed else f"{text} and stays so: its file system knows no modes")
