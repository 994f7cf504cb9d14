"""Wrong PINs are counted for what a guess is made at: the wrapping of the master key, whatever stands beside it.

The counters of a token, and the serial number by which the witness (witness.py) knows it, are nobody's word until a PIN
has opened something: whoever can write the file or the rows sets them to what he likes. What he cannot change is the
wrapping that the PIN is tried on. Any other salt, nonce or ciphertext is opened by another PIN or by none, so guesses
at it tell nothing of this one. So in the folder of the witnesses there is a small file for each wrapping, called by its
digest, with

    how many wrong PINs were tried on it here since the last right one
    the number of the attempt at which they were counted, and the key by which pardons are verified (pardon.py)

A wrong PIN is counted here before the token is written, so not even a server that sees the token's new counters and
then drops the connection can have it for nothing. A new PIN has a new wrapping, and the old one's count is history.

Files that were not touched for half a year go when another one is made; a login touches them in time. No other reason
removes one, so nobody pushes out a count with tokens of his own: once there are MOST, a new wrapping gets none.
"""

from __future__ import annotations

import os
import struct
import time
from fcntl import LOCK_EX, flock

from keyfob import files
from keyfob.store.counters import MOST_FAILURES
from keyfob.store.integrity import SIZE, Hasher
from keyfob.store.witness import NO_PUBLIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.counters import Counters
    from keyfob.store.pardon import Pardon

ROW = struct.Struct("<QI32s")
CHECKSUM = Hasher(b"keyfob guesses")
IDENTITY = Hasher(b"keyfob wrapping")
BEGINNING = ".pin-"  # no serial number's file is called so
MOST = 4096  # files
DAY = 24 * 60 * 60
OLD, AGEING = 180 * DAY, 30 * DAY


class Guessed:
    """At a wrapping. `failed` wrong PINs up to the attempt number `counted`; `public` as in witness.Seen."""

    __slots__ = ("counted", "failed", "is_ageing", "public")

    def __init__(self, counted: int, failed: int, public: bytes) -> None:
        self.counted = counted
        self.failed = failed
        self.public = public
        self.is_ageing = False

    def encode(self) -> bytes:
        return CHECKSUM.append_to(ROW.pack(self.counted, self.failed, self.public))

    def pardon(self, serial: str, counters: Counters) -> Pardon | None:
        """What says that these wrong PINs were rightly forgotten."""
        if not counters.pardon:
            return None
        from keyfob.store import pardon

        found = pardon.read(counters.pardon, serial, self.public)
        return found if found is not None and found.tries > self.counted else None

    def least(self, role: str, serial: str, counters: Counters) -> int:
        """How many wrong PINs count, although the token may say less."""
        found = self.pardon(serial, counters) if counters.failed[role] < self.failed else None
        return self.failed if found is None else min(self.failed, found.failed[role])


class Guesses:
    """`folder`: of the witnesses. `mention` gets what is wrong with it. Best effort where it cannot be written."""

    __slots__ = ("_folder", "_mention")

    def __init__(self, folder: str, mention: Callable[[str], None]) -> None:
        self._folder = folder
        self._mention = mention

    def read(self, wrapping: bytes) -> Guessed | None:
        """None where no PIN was tried on it here."""
        try:
            content, status = files.read_kept(self._path(wrapping), ROW.size + SIZE)
        except FileNotFoundError:
            return None
        except OSError as problem:
            self._mention(f"what was counted of wrong PINs on this machine cannot be read: {problem.strerror}")
            return None
        found = _decoded(content)
        if found is None:
            self._mention("what was counted of wrong PINs on this machine is damaged")
        else:
            found.is_ageing = time.time() - status.st_mtime > AGEING
        return found

    def count(self, wrapping: bytes, role: str, serial: str, counters: Counters, public: bytes) -> int:
        """One more wrong PIN: how many there are with it. `counters`: as they were before it; `public`: the token's."""

        def counted(before: Guessed | None) -> Guessed:
            if before is None:
                return Guessed(counters.tries, min(counters.failed[role] + 1, MOST_FAILURES), public)
            found = before.pardon(serial, counters)
            failed = max(before.least(role, serial, counters), counters.failed[role])
            after = Guessed(max(before.counted, counters.tries), min(failed + 1, MOST_FAILURES), before.public)
            if found is not None:  # none is used twice
                after.counted, after.public = max(after.counted, found.tries), found.public
            elif before.public == NO_PUBLIC:
                after.public = public
            return after

        after = self._change(wrapping, counted)
        return counters.failed[role] + 1 if after is None else after.failed

    def opened(self, wrapping: bytes, tries: int, public: bytes, forgiven: int) -> None:
        """The right PIN: what was counted before it is forgotten, what others have counted since is not."""

        def reset(before: Guessed | None) -> Guessed:
            if before is None:
                return Guessed(tries, 0, public)
            return Guessed(max(before.counted, tries), max(before.failed - forgiven, 0), public)

        self._change(wrapping, reset)

    def _change(self, wrapping: bytes, change: Callable[[Guessed | None], Guessed]) -> Guessed | None:
        """Of two at the same moment the second waits for the first. None where nothing can be kept."""
        path = self._path(wrapping)
        try:
            if not os.path.lexists(path):
                self._make_room()
            descriptor = files.keep(path)
            try:
                flock(descriptor, LOCK_EX)
                after = change(_decoded(os.pread(descriptor, ROW.size + SIZE, 0)))
                content = after.encode()
                if files.write_at(descriptor, content, 0) != len(content):
                    raise OSError(0, "it was written in part", path)
            finally:
                os.close(descriptor)
        except OSError as problem:
            self._mention(f"wrong PINs cannot be counted on this machine, but in the token alone: {problem.strerror}")
            return None
        return after

    def _make_room(self) -> None:
        """For another file: those go that nobody has touched for long. OSError where there are too many others."""
        try:
            names = [name for name in os.listdir(self._folder) if name.startswith(BEGINNING)]
        except FileNotFoundError:
            return
        left, oldest = 0, time.time() - OLD
        for name in names:
            path = os.path.join(self._folder, name)
            try:
                if os.lstat(path).st_mtime < oldest:
                    os.unlink(path)
                else:
                    left += 1
            except FileNotFoundError:  # another process was faster
                continue
        if left >= MOST:
            raise OSError(0, f"{left} others were used in the last half year", self._folder)

    def _path(self, wrapping: bytes) -> str:
        """Without what may follow a wrapping: it opens nothing by itself, and could be changed to be counted apart."""
        from keyfob.store import seal

        return os.path.join(self._folder, BEGINNING + IDENTITY(wrapping[: seal.WRAPPING.size]).hex()[:32])


def _decoded(content: bytes) -> Guessed | None:
    row = CHECKSUM.take_off(content)
    if row is None or len(row) != ROW.size:
        return None
    return Guessed(*ROW.unpack(row))
