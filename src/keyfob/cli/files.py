"""Files that commands write: never half, never over another, and for their owner's eyes where they hold a key."""

from __future__ import annotations

import sys
from pathlib import Path

from keyfob.cli.errors import Refusal
from keyfob.files import PUBLIC, SECRET, replace

__all__ = ["PUBLIC", "SECRET", "refuse_binary_on_terminal", "write"]


def write(out: str | None, data: bytes, *, mode: int = PUBLIC, force: bool = False) -> None:
    """Write to the file `out`; to standard output where it is None or `-`."""
    if out is None or out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    if path.exists() and not force:
        raise Refusal(f"{out} is there already: give another name, or --force to write over it")
    try:
        replace(str(path), data, mode, exactly=False)
    except OSError as problem:
        raise Refusal(f"{out} cannot be written: {problem.strerror}") from None


def refuse_binary_on_terminal(out: str | None) -> None:
    """DER and PKCS#12 are not for eyes."""
    if out is None and sys.stdout.isatty():
        raise Refusal("this format is not text: give --out FILE")
