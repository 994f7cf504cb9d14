"""Wrong PINs of a token that cannot be written are counted elsewhere: in the folder of the witnesses.

A token may be read-only on purpose, on a disc or below a folder of root's, or for the moment, on a full disk. Counted
in the process alone, its wrong PINs would be forgotten at the next start, and whoever can start programs could guess
on. The count is brought to the token as soon as that can be written. Of two processes that count at the same moment the
second waits for the first's lock.
"""

from __future__ import annotations

import os
import struct

from keyfob import files
from keyfob.store.counters import MOST_FAILURES, ROLES
from keyfob.store.integrity import SIZE, Hasher

ROW = struct.Struct("<II")
CHECKSUM = Hasher(b"keyfob attempts")
ENDING = ".attempts"


class Elsewhere:
    """`folder`: of the witnesses; None for none, and nothing is counted. Methods raise OSError where that fails."""

    __slots__ = ("_folder", "_was_there")

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._was_there = False

    def read(self, serial: str) -> dict[str, int] | None:
        """Wrong PINs by role; None where nothing is counted here. What is damaged counts as 0, as if it were gone."""
        try:
            content = files.read_kept(self._path(serial), ROW.size + SIZE)[0]
        except OSError:
            was_there, self._was_there = self._was_there, False
            return dict.fromkeys(ROLES, 0) if was_there else None  # another process has brought them to the token
        self._was_there = True
        return _decode(content)

    def change(self, serial: str, role: str, *, wrong: bool) -> dict[str, int]:
        """Count one more wrong PIN of a role, or forget all after a right one; what counts from now on."""
        import fcntl

        descriptor = files.keep(self._path(serial))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            failed = _decode(os.pread(descriptor, ROW.size + SIZE, 0))
            failed[role] = min(failed[role] + 1, MOST_FAILURES) if wrong else 0
            content = CHECKSUM.append_to(ROW.pack(*(failed[each] for each in ROLES)))
            if files.write_at(descriptor, content, 0) != len(content):
                raise OSError(0, "it was written in part", self._path(serial))
        finally:
            os.close(descriptor)
        self._was_there = True
        return failed

    def forget(self, serial: str) -> None:
        """They count in the token now."""
        try:
            os.unlink(self._path(serial))
        except FileNotFoundError:
            return

    def _path(self, serial: str) -> str:
        if self._folder is None:
            raise FileNotFoundError(0, "there is no folder to count in")
        return os.path.join(self._folder, files.name_for(serial) + ENDING)


def _decode(content: bytes) -> dict[str, int]:
    row = CHECKSUM.take_off(content)
    if row is None or len(row) != ROW.size:
        return dict.fromkeys(ROLES, 0)
    return dict(zip(ROLES, ROW.unpack(row), strict=True))
