"""Files that commands write: never half, never over another, and for their owner's eyes where they hold a key."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from keyfob.cli.errors import Refusal

SECRET, PUBLIC = 0o600, 0o644


def write(out: str | None, data: bytes, *, mode: int = PUBLIC, force: bool = False) -> None:
    """Write to the file `out`; to standard output where it is None or `-`."""
    if out is None or out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    if path.exists() and not force:
        raise Refusal(f"{out} is there already: give another name, or --force to write over it")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        raise Refusal(f"{out} cannot be written: {problem.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def refuse_binary_on_terminal(out: str | None) -> None:
    """DER and PKCS#12 are not for eyes."""
    if out is None and sys.stdout.isatty():
        raise Refusal("this format is not text: give --out FILE")
