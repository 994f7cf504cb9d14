"""A second place that knows how far a token had come: by it an older copy of the whole file is noticed.

Everything in a copy fits together, MACs and roster included; only something that was not copied with it can tell that
it is old. So the counters of a token are kept beside in a file of their own, below the folder of this machine's state,
and a token that is behind them was put back: by somebody who restored a backup, or who wants another ten PIN guesses.
The guesses do not come back: the failures that were counted here count on.

The witness is written after each durable commit and never waited for: where a crash loses its last words it knows less,
which raises no false alarm. It knows one token by its serial number, holds nothing secret, and whoever can write to
both places can put back both.
"""

from __future__ import annotations

import os
import struct

from keyfob import files
from keyfob.store.counters import ROLES
from keyfob.store.integrity import SIZE, Hasher, same_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.counters import Counters

ROW = struct.Struct("<QQII")
WITNESS_CHECKSUM = Hasher(b"keyfob witness")


class Seen:
    """How far a token had come."""

    __slots__ = ("failed", "tries", "version")

    def __init__(self, version: int, tries: int, *failed: int) -> None:
        self.version = version
        self.tries = tries
        self.failed = dict(zip(ROLES, failed, strict=True))

    def is_ahead_of(self, counters: Counters) -> bool:
        return self.version > counters.version or self.tries > counters.tries

    def tell_if_ahead_of(self, counters: Counters, tell: Callable[[str], None]) -> None:
        if self.is_ahead_of(counters):
            writes, attempts = max(self.version - counters.version, 0), max(self.tries - counters.tries, 0)
            tell(
                "an older copy of the token was put back, or its write-ahead log is damaged: "
                f"{writes} writes and {attempts} attempts at a PIN are missing in it"
            )


class Witness:
    """`folder`: where the files are, one for each token; made when there is something to write.

    `tell` gets what is wrong with the token, `mention` what is wrong with the folder.
    """

    __slots__ = ("_folder", "_last", "_mention", "_tell")

    def __init__(self, folder: str, tell: Callable[[str], None], mention: Callable[[str], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._mention = mention
        self._last = b""

    def catch_up(self, serial: str, counters: Counters) -> bool:
        """Whether the token is older than what was seen of it; its counters are brought up to that."""
        seen = self.read(serial)
        if seen is None or not seen.is_ahead_of(counters):
            return False
        seen.tell_if_ahead_of(counters, self._tell)
        counters.version, counters.tries = max(seen.version, counters.version), max(seen.tries, counters.tries)
        for role in ROLES:
            counters.failed[role] = max(counters.failed[role], seen.failed[role])
        return True

    def knows(self, serial: str, counters: Counters) -> bool:
        """Whether the token's present version was noted."""
        seen = self.read(serial)
        return seen is not None and seen.version == counters.version

    def note(self, serial: str, counters: Counters) -> None:
        """Remember how far the token has come; best effort."""
        row = ROW.pack(counters.version, counters.tries, *(counters.failed[role] for role in ROLES))
        if row == self._last:
            return
        try:
            self._write(self._path(serial), row)
        except OSError as problem:
            self._mention(f"nobody will notice if an older copy of the token is put back: {problem.strerror}")
        else:
            self._last = row

    def _write(self, path: str, row: bytes) -> None:
        descriptor = files.keep(path)
        try:
            os.pwrite(descriptor, row + WITNESS_CHECKSUM(row), 0)
        finally:
            os.close(descriptor)

    def read(self, serial: str) -> Seen | None:
        """What was noted of a token; None where nothing is known, which the log says if it should be."""
        try:
            found, _ = files.read(self._path(serial), ROW.size + SIZE)
        except FileNotFoundError:
            return None
        except OSError as problem:
            self._mention(f"nobody can tell whether the token is an older copy: {problem.strerror}")
            return None
        row, checksum = found[: ROW.size], found[ROW.size :]
        if not same_digest(WITNESS_CHECKSUM(row), checksum):
            self._mention("what was remembered of the token is damaged: nobody can tell whether it is an older copy")
            return None
        return Seen(*ROW.unpack(row))

    def _path(self, serial: str) -> str:
        name = serial if serial.isascii() and serial.isalnum() else "-" + serial.encode().hex()
        return os.path.join(self._folder, name)
