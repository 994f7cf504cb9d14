"""What commands write where people say: never half, and for their owner's eyes where it holds a key.

A file takes the place of one that may be there. A symbolic link stays and leads to what is written; one that somebody
else made is refused. What is no file, or what this process has open (/dev/stdout, /dev/fd/3), is written to as it is:
to put a file in the place of such a name would take it from the whole machine.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from errno import EINVAL, ELOOP, EPERM
from stat import S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from keyfob import files
from keyfob.cli.errors import Refusal
from keyfob.files import PUBLIC, SECRET

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["PUBLIC", "SECRET", "may_write", "opened", "place", "refuse_binary_on_terminal", "write"]

OPEN_HERE = ("/proc/self/fd", "/proc/thread-self/fd")
LINKS = 40  # one after the other, as the kernel has it


def write(out: str | None, data: bytes, *, mode: int = PUBLIC, force: bool = False) -> None:
    """Write to what `out` says; to standard output where it is None or `-`."""
    if out is None or out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with _told(out):
        path = _end(out)
        if isinstance(path, int) or not _is_file(path):
            with os.fdopen(_stream(path), "wb") as file:
                file.write(data)
            return
        if os.path.exists(path) and not force:
            raise Refusal(f"{out} is there already: give another name, or --force to write over it")
        files.replace(path, data, mode, exactly=False)


def opened(out: str) -> int:
    """A descriptor for what is written bit by bit: of an empty file, 0600, or of what `out` is otherwise."""
    with _told(out):
        path = _end(out)
        if isinstance(path, int) or not _is_file(path):
            return _stream(path)
        part = files.part(path)
        descriptor = files.new(part)
        try:
            os.replace(part, path)
        except BaseException:
            os.close(descriptor)
            os.unlink(part)
            raise
        return descriptor


def place(out: str, *, force: bool) -> str:
    """The path of a file which is not there, or with `force` may be there, where links have led to their end."""
    with _told(out):
        path = _end(out)
        if isinstance(path, int) or not _is_file(path):
            raise OSError(EINVAL, "it is no file", out)
        if os.path.exists(path) and not force:
            raise Refusal(f"{out} is there already: give another name, or --force to write over it")
        return path


def may_write(out: str) -> bool:
    """Whether `write` can be expected to do it."""
    try:
        path = _end(out)
    except OSError:
        return False
    return isinstance(path, int) or os.access(os.path.dirname(path) if _is_file(path) else path, os.W_OK)


@contextmanager
def _told(out: str) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        raise Refusal(f"{out} cannot be written: {problem.strerror}") from None


def _end(out: str) -> str | int:
    """Where links lead: the number of a descriptor of this process, or a path that is no link; OSError."""
    path, ours = out, [os.path.realpath(folder) for folder in OPEN_HERE]
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        if folder in ours and name.isascii() and name.isdigit():
            return int(name)
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            return path
        status = os.lstat(path)
        if not S_ISLNK(status.st_mode):
            return path
        if stranger := files.stranger(status):
            raise OSError(EPERM, f"it is a symbolic link that {stranger}", path)
        path = os.path.join(folder, os.readlink(path))
    raise OSError(ELOOP, "its symbolic links lead nowhere", out)


def _is_file(path: str) -> bool:
    """Whether a file is there, or nothing."""
    return not os.path.lexists(path) or S_ISREG(os.lstat(path).st_mode)


def _stream(end: str | int) -> int:
    """A descriptor for what is written to as it is."""
    if isinstance(end, str):
        return files.stream(end)
    if sys.stdout is not None:
        sys.stdout.flush()  # what was said before comes before it
    return os.dup(end)


def refuse_binary_on_terminal(out: str | None) -> None:
    """DER and PKCS#12 are not for eyes."""
    if out is None and sys.stdout.isatty():
        raise Refusal("this format is not text: give --out FILE")
