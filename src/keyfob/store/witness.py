"""A second place that knows how far a token had come: by it an older copy of the whole token is noticed.

Everything in a copy fits together, MACs and roster included; only something that was not copied with it can tell that
it is old. So below the folder of this machine's state there is a file for each token, with

    the counters, and how many wrong PINs the token had when they were counted or rightly forgotten
    the state (state.py) that the last login on this machine found or left, by its name and its past
    the public key that pardons of wrong PINs are verified with (pardon.py)

A token whose counters are behind these, or whose state does not follow from that one, was put back, or grew from a
copy: by somebody who restored a backup, or who wants another ten PIN guesses. The guesses do not come back.

The witness is written after each durable commit and never waited for: where a crash loses its last words it knows less,
which raises no false alarm. It knows one token by its serial number, which a writer of the token can change: wrong PINs
are counted in guesses.py as well. It holds nothing secret, and whoever can write to both places can put back both.
"""

from __future__ import annotations

import os
import struct
from fcntl import LOCK_EX, flock

from keyfob import files
from keyfob.store.counters import ROLES
from keyfob.store.integrity import Hasher
from keyfob.store.state import LATER, NOBODY, OLD_COPY, Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.counters import Counters
    from keyfob.store.state import State

ROW = struct.Struct("<QQII")
COUNTED = struct.Struct("<Q32s")
NO_PUBLIC = bytes(32)
MOST_BYTES = 4096
READS = 3  # of a file that looks damaged: another process may be writing it
WITNESS_CHECKSUM = Hasher(b"keyfob witness")
MACHINE = ".machine"


class Seen:
    """How far a token had come. `trace`: of the state that a login verified; None for none.

    `counted`: the number of the attempt after which `failed` were the wrong PINs.
    """

    __slots__ = ("counted", "failed", "public", "trace", "tries", "version")

    def __init__(self, version: int, tries: int, *failed: int) -> None:
        self.version = version
        self.tries = self.counted = tries
        self.failed = dict(zip(ROLES, failed, strict=True))
        self.public = NO_PUBLIC
        self.trace: Trace | None = None

    def encode(self) -> bytes:
        row = ROW.pack(self.version, self.tries, *(self.failed[role] for role in ROLES))
        trace = b"" if self.trace is None else self.trace.encode()
        return row + COUNTED.pack(self.counted, self.public) + trace

    @classmethod
    def decode(cls, value: bytes) -> Seen:
        """ValueError unless `encode` could have written it, here or in an older keyfob."""
        try:
            seen = cls(*ROW.unpack_from(value))
            if len(value) > ROW.size:
                seen.counted, seen.public = COUNTED.unpack_from(value, ROW.size)
        except struct.error as problem:
            raise ValueError(str(problem)) from None
        if len(value) > ROW.size + COUNTED.size:
            seen.trace = Trace.decode(value[ROW.size + COUNTED.size :])
        return seen

    def doubt(self, counters: Counters) -> str:
        """What speaks against counters that are lower; empty where none is."""
        writes, attempts = max(self.version - counters.version, 0), max(self.tries - counters.tries, 0)
        if not (writes or attempts):
            return ""
        missing = f"{writes} writes and {attempts} attempts at a PIN are missing in it"
        return f"{OLD_COPY}, or its write-ahead log is damaged: {missing}"


class Witness:
    """`folder`: where the files are, one for each token; made when there is something to write.

    `mention` gets what is wrong with the folder.
    """

    __slots__ = ("_folder", "_machine", "_mention")

    def __init__(self, folder: str, mention: Callable[[str], None]) -> None:
        self._folder = folder
        self._mention = mention
        self._machine = b""

    @property
    def machine(self) -> bytes:
        """The name, drawn by lot, under which commits of this machine are counted; NOBODY where it has no place."""
        if not self._machine:
            self._machine = self._name_of_machine()
        return self._machine

    def _name_of_machine(self) -> bytes:
        path = os.path.join(self._folder, MACHINE)
        try:
            for _ in range(READS):
                try:
                    name, _status = files.read_kept(path, len(NOBODY))
                except FileNotFoundError:
                    _make_name(path)
                    continue
                if len(name) == len(NOBODY):
                    return name
                files.replace(path, os.urandom(len(NOBODY)))  # an older keyfob could not write it: the disk was full
        except OSError as problem:
            self._mention(f"what this machine writes cannot be told from what others write: {problem.strerror}")
        return NOBODY

    def catch_up(self, serial: str, counters: Counters) -> str:
        """Bring the token's counters up to what was seen of it; what speaks against them, empty where nothing does.

        A count of wrong PINs may be lower than the one that was seen only where a pardon says so.
        """
        seen = self.read(serial)
        if seen is None:
            return ""
        found = seen.doubt(counters)
        least = seen.failed
        if any(counters.failed[role] < least[role] for role in ROLES):
            least = self._least(seen, serial, counters)
            lowered = [role for role in ROLES if counters.failed[role] < least[role]]
            if lowered and seen.public != NO_PUBLIC:
                found = found or f"wrong PINs ({' and '.join(lowered)}) were struck from the token; they count on"
        counters.version, counters.tries = max(seen.version, counters.version), max(seen.tries, counters.tries)
        for role in ROLES:
            counters.failed[role] = max(counters.failed[role], least[role])
        return found

    @staticmethod
    def _least(seen: Seen, serial: str, counters: Counters) -> dict[str, int]:
        """How many wrong PINs count, by role, although the token says less."""
        from keyfob.store import pardon

        found = pardon.read(counters.pardon, serial, seen.public) if counters.pardon else None
        if found is None or found.tries <= seen.counted:
            return seen.failed
        counters.tries = max(counters.tries, found.tries)  # so that it is not used twice
        return {role: min(seen.failed[role], found.failed[role]) for role in ROLES}

    def knows(self, serial: str, counters: Counters, trace: Trace | None) -> bool:
        """Whether the token's present version and state were noted."""
        seen = self.read(serial)
        if seen is None or seen.version != counters.version:
            return False
        return trace is None or (seen.trace is not None and seen.trace.identity == trace.identity)

    # Noting, best effort

    def note_writes(self, serial: str, counters: Counters) -> None:
        """Objects were written without a login."""

        def written(seen: Seen | None) -> Seen:
            noted = seen or Seen(0, counters.tries, *(counters.failed[role] for role in ROLES))
            noted.version = max(noted.version, counters.version)
            return noted

        self._note(serial, written)

    def note_attempt(self, serial: str, counters: Counters, state: State | None) -> None:
        """A PIN was wrong. The counters are caught up; nobody vouches for the state."""

        def attempted(seen: Seen | None) -> Seen:
            noted = Seen(counters.version, counters.tries, *(counters.failed[role] for role in ROLES))
            noted.public = NO_PUBLIC if state is None else state.public
            if seen is not None:
                noted.trace = seen.trace
                if seen.public != NO_PUBLIC:
                    noted.public = self._public(serial, counters, seen)
            return noted

        self._note(serial, attempted)

    @staticmethod
    def _public(serial: str, counters: Counters, seen: Seen) -> bytes:
        """The public key to go by; another one than before only where a pardon hands over to it."""
        if not counters.pardon:
            return seen.public
        from keyfob.store import pardon

        found = pardon.read(counters.pardon, serial, seen.public)
        return seen.public if found is None else found.public

    def note_state(self, serial: str, counters: Counters, state: State, *, pins: bool) -> None:
        """What somebody with the keys has found or left. `pins`: at a login, or when a PIN was set."""

        def left(seen: Seen | None) -> Seen:
            noted = Seen(counters.version, counters.tries, *(counters.failed[role] for role in ROLES))
            noted.public, noted.trace = state.public, state.trace
            if seen is not None:  # another process may have gone on, and have been faster to say so
                if not pins or seen.counted > noted.counted:
                    noted.counted, noted.failed = seen.counted, seen.failed
                noted.version, noted.tries = max(noted.version, seen.version), max(noted.tries, seen.tries)
                if seen.trace is not None and seen.trace.relation_to(state.trace) == LATER:
                    noted.trace, noted.public = seen.trace, seen.public
            return noted

        self._note(serial, left)

    def _note(self, serial: str, change: Callable[[Seen | None], Seen]) -> None:
        try:
            descriptor = files.keep(self._path(serial))
            try:
                flock(descriptor, LOCK_EX)
                before = os.pread(descriptor, MOST_BYTES, 0)
                after = WITNESS_CHECKSUM.append_to(change(_opened(before)).encode())
                files.write_at(descriptor, after, 0)
                if len(before) > len(after):
                    os.ftruncate(descriptor, len(after))
            finally:
                os.close(descriptor)
        except OSError as problem:
            self._mention(f"nobody will notice if an older copy of the token is put back: {problem.strerror}")

    def read(self, serial: str) -> Seen | None:
        """What was noted of a token; None where nothing is known, which the log says if it should be."""
        for _ in range(READS):
            try:
                found, _status = files.read_kept(self._path(serial), MOST_BYTES)
            except FileNotFoundError:
                return None
            except OSError as problem:
                self._mention(f"nobody can tell whether the token is an older copy: {problem.strerror}")
                return None
            seen = _opened(found)
            if seen is not None:
                return seen
        self._mention("what was remembered of the token is damaged: nobody can tell whether it is an older copy")
        return None

    def _path(self, serial: str) -> str:
        return os.path.join(self._folder, files.name_for(serial))


def _make_name(path: str) -> None:
    from keyfob.store.publish import publish

    files.make_folder(os.path.dirname(path))
    try:
        publish(os.urandom(len(NOBODY)), path)
    except FileExistsError:  # another process was faster
        return


def _opened(found: bytes) -> Seen | None:
    row = WITNESS_CHECKSUM.take_off(found)
    try:
        return None if row is None else Seen.decode(row)
    except ValueError:
        return None
