"""Descriptors that stay open between calls, in a host that may close them and open others under their numbers.

There are three kinds, and each is looked at, by device and inode, at the start of whatever uses it:

    SQLite's      opened, guarded and closed by abi/descriptors.c, for which SQLite itself calls; a `Kept` for each
                  connection (store/database.py)
    the server's  PostgreSQL's socket, a `Held` for each connection (store/postgres/database.py)
    locks         that are kept while a PIN is hardened, a `Held` each (store/turns.py, token/pin_file.py): within one
                  call, but a long one

Everything else (logs, key files, pinentry's channel) is opened and closed within one call. Where the C ABI is not in
between, as in the `keyfob` command, nobody closes behind our back: the guard then knows of no descriptor.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Kept:
    """The descriptors of one connection."""

    __slots__ = ()

    def are_ours(self) -> bool:
        """Whether they all still mean the files that were opened."""
        return True

    def is_first_ours(self) -> bool:
        """Whether that holds of the one that is used first, and without which nothing can be read."""
        return True


NOBODYS = Kept()


class Guard:
    """The C ABI's is in abi/descriptors.py. Paths are files that a connection has open."""

    __slots__ = ()

    def name(self, path: str) -> None:
        """A database of keyfob's is going to be opened by this name, as SQLite itself spells it."""

    def keep(self, paths: Sequence[str]) -> Kept:
        return NOBODYS

    def mapping(self, path: str, size: int) -> Any:
        """Something whose slices are the file's first bytes as of then; None where that needs a descriptor of its own.

        OSError when it cannot be mapped.
        """
        return None


_guard = Guard()


def use(guard: Guard) -> None:
    """The C ABI is in between from now on."""
    global _guard  # one for each process
    _guard = guard


def name(path: str) -> None:
    """See Guard."""
    _guard.name(path)


def keep(paths: Sequence[str]) -> Kept:
    return _guard.keep(paths)


def mapping(path: str, size: int) -> Any:
    """See Guard."""
    return _guard.mapping(path, size)


class Held(Kept):
    """One descriptor, whoever opened it."""

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = _identity(number)

    def are_ours(self) -> bool:
        return self._identity is not None and _identity(self.number) == self._identity

    is_first_ours = are_ours

    def close(self) -> None:
        if self.are_ours():
            os.close(self.number)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
