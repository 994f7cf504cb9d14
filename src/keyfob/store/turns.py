"""No more PINs are hardened at a time than this machine has processors, whatever the number of processes.

Each takes a processor and 64 MiB or more: four hundred programs that start at once would take 25 GiB, and none would be
ready sooner. So each takes a turn: a lock on one byte of a file in the folder of the witnesses. The kernel gives it
back when a process dies, whatever way. Nobody fails for want of a turn: after a while one goes without.

The locks belong to open files and not to processes (F_OFD_SETLK of fcntl(2)), so threads take turns, too.
"""

from __future__ import annotations

import os
import time
from errno import EACCES, EAGAIN
from fcntl import F_OFD_SETLK, F_WRLCK, fcntl
from struct import Struct

from keyfob import files
from keyfob.aside import ASIDE
from keyfob.descriptors import Held

NAME = ".turns"  # no serial number's file is called so
MOST = 8  # turns, where there are more processors
LONGEST = 30.0  # seconds without a turn, as where programs were stopped in the middle of theirs
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.05  # seconds
PLACE = Struct("hhqqi")  # struct flock: type, whence, start, length, process

_open: set[Held] = set()


class Turn:
    """`with Turn(folder): ...`; None, or a folder that cannot be written, makes nobody wait."""

    __slots__ = ("_folder", "_held")

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._held: Held | None = None

    def __enter__(self) -> None:
        if self._folder is None:
            return
        try:
            self._held = _opened(self._folder)
            self._wait(self._held)
        except OSError:  # this file system has no such locks, or no room
            return

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            _open.discard(self._held)
            self._held.close()

    def _wait(self, held: Held) -> None:
        """Until the host closes what is waited with: its number may then stand for a file of the host's."""
        end, pause = time.monotonic() + LONGEST, SHORTEST_PAUSE
        while held.are_ours() and not _take_one(held.number) and time.monotonic() < end:
            with ASIDE:
                time.sleep(pause * (0.5 + os.urandom(1)[0] / 255))
            pause = min(1.5 * pause, LONGEST_PAUSE)


def _opened(folder: str) -> Held:
    held = Held(files.keep(os.path.join(folder, NAME)))
    _open.add(held)
    return held


def _take_one(descriptor: int) -> bool:
    for place in range(min(len(os.sched_getaffinity(0)), MOST)):
        try:
            fcntl(descriptor, F_OFD_SETLK, PLACE.pack(F_WRLCK, os.SEEK_SET, place, 1, 0))
        except OSError as problem:
            if problem.errno not in (EACCES, EAGAIN):
                raise
        else:
            return True
    return False


def _in_child() -> None:
    """What other threads of the parent have is not kept for them here."""
    while _open:
        try:
            _open.pop().close()
        except OSError:  # one that is gone keeps none of the others
            continue


os.register_at_fork(after_in_child=_in_child)
