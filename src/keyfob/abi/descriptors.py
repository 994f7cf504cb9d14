"""Gives SQLite its guarded system calls (descriptors.c), and the store a way to ask for SQLite's descriptors.

And lets keyfob's own files be written as SQLite's are: without a signal where a limit is reached.
"""

from __future__ import annotations

import os

import apsw

from keyfob._abi import ffi, lib
from keyfob.descriptors import NOBODYS, Guard, Kept, use
from keyfob.files import Writer, write_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

are_ours = lib.keyfob_are_ours
AT_ITS_PLACE = -1  # of the descriptor


class _KeptBySqlite(Kept):
    """The numbers as an array in C."""

    __slots__ = ("_count", "_numbers")

    def __init__(self, numbers: list[int]) -> None:
        self._count = len(numbers)
        self._numbers = ffi.new("int[]", numbers)

    def are_ours(self) -> bool:
        return bool(are_ours(self._numbers, self._count))

    def is_first_ours(self) -> bool:
        return bool(are_ours(self._numbers, 1))


class _GuardOfSqlite(Guard):
    __slots__ = ()

    def name(self, path: str) -> None:
        if not lib.keyfob_name_own(os.fsencode(path)):
            raise MemoryError

    def keep(self, paths: Sequence[str]) -> Kept:
        numbers = [number for path in paths if (number := lib.keyfob_descriptor_of(os.fsencode(path))) >= 0]
        return _KeptBySqlite(numbers) if numbers else NOBODYS

    def mapping(self, path: str, size: int) -> Any:
        number = lib.keyfob_descriptor_of(os.fsencode(path))
        if number < 0:
            return None
        address = lib.keyfob_map(number, size)
        if not address:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return ffi.buffer(ffi.gc(address, lambda found: lib.keyfob_unmap(found, size)), size)


class _WriterWithoutSignal(Writer):
    __slots__ = ()

    def write(self, descriptor: int, content: bytes | memoryview, place: int | None) -> int:
        where = AT_ITS_PLACE if place is None else place
        written: int = lib.keyfob_write_file(descriptor, ffi.from_buffer(content), len(content), where)
        if written < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return written

    def reserve(self, descriptor: int, size: int) -> None:
        problem = lib.keyfob_reserve_file(descriptor, size)
        if problem:
            raise OSError(problem, os.strerror(problem))


def install() -> None:
    """Before the first connection is opened."""
    vfs = apsw.VFS("keyfob-descriptors", "unix")
    name = vfs.xNextSystemCall(None)
    while name is not None:
        address = lib.keyfob_system_call(name.encode())
        if address:
            vfs.xSetSystemCall(name, address)
        name = vfs.xNextSystemCall(name)
    vfs.unregister()
    use(_GuardOfSqlite())
    write_by(_WriterWithoutSignal())
