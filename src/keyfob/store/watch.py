"""Noticing at once, and for almost nothing, that some process has changed a token.

SQLite's own answer, PRAGMA data_version, needs a read transaction: file locks and 4 us. (`Connection.data_version()`
without one is fast but repeats what the connection knew.) Every commit in WAL mode rewrites the header of the WAL
index, 48 bytes at the start of the file -shm that all processes map (sqlite.org/walformat.html); it holds a change
counter and checksums. So a store maps it too, read-only, and compares: 0.2 us. When the header is another than before
it asks SQLite; nothing else follows from what is seen there.

In a host it maps the file through SQLite's own descriptor (descriptors.py). Elsewhere that is not known, and it opens
one. The descriptors of such a mapping are not closed while the file lives: closing any descriptor of a file drops all
POSIX locks that the process has on it, SQLite's among them. One mapping per file is shared by all stores here.
"""

from __future__ import annotations

import mmap
import os

from keyfob import descriptors, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER_SIZE = 48

_maps: dict[tuple[int, int], tuple[int, mmap.mmap]] = {}


class SharedHeader:
    """The header of one database's WAL index."""

    __slots__ = ("_map",)

    def __init__(self, path: str) -> None:
        """`path`: the database's, with a connection open on it; OSError or ValueError where -shm cannot be mapped."""
        name = path + "-shm"
        self._map: Any = descriptors.mapping(name, HEADER_SIZE)
        if self._map is None:
            self._map = _opened(name)

    def read(self) -> bytes | None:
        found: bytes = self._map[:HEADER_SIZE]
        return found


class FileStatus:
    """For a database read without a WAL index: what the file system says of it, 3 us."""

    __slots__ = ("_path", "_pending")

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending = path + "-wal"

    def read(self) -> bytes | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        try:
            pending = os.stat(self._pending).st_size
        except OSError:
            pending = 0
        return b"%d %d %d %d" % (status.st_ino, status.st_size, status.st_mtime_ns, pending)


class Unknown:
    """Where nothing can be observed: assume a change each time."""

    __slots__ = ()

    def read(self) -> bytes | None:
        return None


Watcher = SharedHeader | FileStatus | Unknown


def _opened(name: str) -> mmap.mmap:
    _forget_deleted_files()
    status = os.stat(name)
    identity = (status.st_dev, status.st_ino)
    if identity not in _maps:
        descriptor = files.reading(name)
        _maps[identity] = (descriptor, mmap.mmap(descriptor, HEADER_SIZE, access=mmap.ACCESS_READ))
    return _maps[identity][1]


def _forget_deleted_files() -> None:
    """SQLite deletes -shm when the last connection of all closes; then no lock on it matters any more."""
    for identity, (descriptor, _) in list(_maps.items()):
        if os.fstat(descriptor).st_nlink == 0:
            del _maps[identity]  # the mapping itself goes with the last store that may still be looking at it
            os.close(descriptor)


def forget_everything() -> None:
    """In a forked child, which holds no locks that could fall."""
    for descriptor, _ in _maps.values():
        os.close(descriptor)
    _maps.clear()
