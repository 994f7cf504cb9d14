"""Tokens as files of one folder: `slot-N.keyfob`, N being the slot's ID (P36).

Slot IDs are stable that way without a registry that could be lost, and a removed file is a removed token.
"""

from __future__ import annotations

import os
from errno import EIO, EMFILE, ENFILE, ENOMEM

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.database import SIDES
from keyfob.store.sqlite import SqliteStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import Pepper
    from keyfob.store.protocol import Database, Store

PREFIX, SUFFIX = "slot-", ".keyfob"
MAX_SLOT = 10**9
PASSING = (EMFILE, ENFILE, ENOMEM, EIO)


class Folder:
    """A Shelf (protocol.py) of token files. `witness`: the folder of witness.py; None for none.

    `own`: the folder is keyfob's, and closed to others; not one that somebody has named for once.
    """

    __slots__ = ("_own", "path", "witness")

    def __init__(self, path: str, witness: str | None = None, *, own: bool = True) -> None:
        self.path = path
        self.witness = witness
        self._own = own

    @property
    def shown(self) -> str:
        return self.path

    def doubts(self) -> list[str]:
        return []

    def slots(self, log: Callable[[str], None]) -> list[int]:
        return self.numbers(SUFFIX, log)

    def numbers(self, suffix: str, log: Callable[[str], None]) -> list[int]:
        """The slot IDs that files with this ending stand for, ascending."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as problem:
            text = f"the folder of tokens cannot be read: {problem.strerror}"
            if problem.errno in PASSING:  # not to be taken for an empty one, with a token to be made
                raise PKCS11Error(CKR.FUNCTION_FAILED, text) from None
            log(text)
            return []
        if self._own:
            files.close_to_others(self.path, log)
        if any(name.startswith(".") for name in names):
            from keyfob.store import publish

            publish.sweep(self.path)
        return sorted(number for name in names if (number := slot_number(name, suffix)) is not None)

    def file(self, slot_id: int) -> str:
        """The token's file."""
        return os.path.join(self.path, f"{PREFIX}{slot_id}{SUFFIX}")

    def key_file(self, slot_id: int) -> str:
        from keyfob.store import key_file

        return key_file.beside(self.file(slot_id))

    def open(self, slot_id: int, log: Callable[[str], None]) -> Store:
        return SqliteStore.open(self.file(slot_id), log=log, witness=self.witness)

    def create(
        self,
        slot_id: int,
        log: Callable[[str], None],
        *,
        label: str,
        serial: str,
        kind: str,
        so_pin: bytes,
        hardening: Hardening,
        general_access: bool = False,
        empty_pin: bool = False,
        pepper: Pepper | None = None,
    ) -> Store:
        return SqliteStore.create(
            self.file(slot_id),
            label=label,
            serial=serial,
            kind=kind,
            so_pin=so_pin,
            hardening=hardening,
            general_access=general_access,
            empty_pin=empty_pin,
            pepper=pepper,
            log=log,
            witness=self.witness,
        )

    def build(self, slot_id: int, fill: Callable[[Database], None]) -> None:
        from keyfob.store import create

        create.build(self.file(slot_id), fill)

    def delete(self, slot_id: int) -> None:
        remove(self.file(slot_id), self.key_file(slot_id))

    def alone(self) -> AbstractContextManager[None]:
        return _Alone(self.path)


def remove(path: str, *more: str) -> None:
    """Delete a token's file; before it SQLite's files beside it, lest a log be taken for another token's."""
    for each in (*(path + end for end in SIDES), path, *more):
        try:
            os.unlink(each)
        except FileNotFoundError:
            continue


def slot_number(name: str, suffix: str = SUFFIX) -> int | None:
    """The slot ID that a file name of the tokens' folder stands for; None for other files."""
    digits = name.removeprefix(PREFIX).removesuffix(suffix)
    if name != f"{PREFIX}{digits}{suffix}" or not (digits.isascii() and digits.isdigit()) or digits.startswith("0"):
        return None
    return int(digits) if int(digits) < MAX_SLOT else None


class _Alone:
    """While this process holds the folder's lock the others wait for it in `__enter__`."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        import fcntl

        files.make_folder(self._path)
        self._descriptor = files.folder(self._path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
