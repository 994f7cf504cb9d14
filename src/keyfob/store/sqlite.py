"""A token in one SQLite file: making it, and opening it. All else is sealed.py's."""

from __future__ import annotations

import os

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import fork
from keyfob.store.database import SIDES, SqliteDatabase
from keyfob.store.reserve import Reserve
from keyfob.store.sealed import SealedStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import Pepper


def _silent(text: str) -> None:
    """No log was given."""


def _require_plain(path: str) -> None:
    """Whoever prepares a token must not lead us to another file; what is not there is for the database to name.

    abi/descriptors.c looks again when SQLite opens them, also in the middle of a session.
    """
    for end in ("", *SIDES):
        try:
            files.require_plain(path + end, alone=bool(end))
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{path}{end} cannot be used: {problem.strerror}") from None


class SqliteStore(SealedStore):
    """Made by `create` or `open`."""

    __slots__ = ()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        label: str,
        serial: str,
        kind: str,
        so_pin: bytes,
        hardening: Hardening,
        general_access: bool = False,
        empty_pin: bool = False,
        pepper: Pepper | None = None,
        log: Callable[[str], None] = _silent,
        witness: str | None = None,
    ) -> SqliteStore:
        """Make a token, 0600, and open it. CKR_FUNCTION_FAILED when there is a file already: it stays as it is.

        The empty SO PIN is accepted (P6). `general_access`: opened by a random key in a file beside it instead of a
        user PIN; the file is made unless it is there already. `empty_pin`: its user PIN counts as set, see TokenInfo.
        `pepper`: what its PINs are made with.
        """
        from keyfob.store.create import build, filling
        from keyfob.store.publish import take_back

        with fork.opening:
            if os.path.lexists(path):  # before anything is made beside it
                raise PKCS11Error(CKR.FUNCTION_FAILED, f"there is a file {os.fspath(path)} already")
            fill = filling(
                os.fspath(path),
                label=label,
                serial=serial,
                kind=kind,
                so_pin=so_pin,
                hardening=hardening,
                general_access=general_access,
                empty_pin=empty_pin,
                pepper=pepper,
            )
            build(os.fspath(path), fill)
            try:
                return cls.open(path, log=log, witness=witness)
            except PKCS11Error as problem:
                take_back(os.fspath(path), problem.reason)
                raise

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        log: Callable[[str], None] = _silent,
        witness: str | None = None,
    ) -> SqliteStore:
        """Open a token. Where it cannot be written it is opened for reading, see `read_only`.

        `witness`: the folder in which this machine remembers how far its tokens had come (witness.py); None for none.

        CKR_TOKEN_NOT_PRESENT: no such file; CKR_TOKEN_NOT_RECOGNIZED: not a token, or of a newer schema;
        CKR_DEVICE_ERROR: damaged or not readable.
        """
        with fork.opening:
            _require_plain(os.fspath(path))
            files.close_to_others(os.fspath(path), log)
            reserve = Reserve(os.fspath(path), witness)
            return cls(SqliteDatabase.open(os.fspath(path), read_only=read_only, reserve=reserve), log, witness)
