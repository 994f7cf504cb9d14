"""Objects at rest. `Store` is all that the rooms above know of a token, `Shelf` of the place where tokens are.

SqliteStore keeps a token in a file, PostgresStore on a server, MemoryStore nowhere.

Errors are PKCS11Error. Whatever the call: CKR_DEVICE_ERROR when the store is damaged or cannot be read,
CKR_DEVICE_MEMORY when it is full, CKR_TOKEN_WRITE_PROTECTED when it can only be read, CKR_FUNCTION_FAILED when another
process kept it busy for twenty seconds, CKR_CRYPTOKI_NOT_INITIALIZED when it is closed or was inherited by a fork.
"""

from __future__ import annotations

from keyfob import environment
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.folder import Folder
from keyfob.store.hardening import Hardening
from keyfob.store.info import TokenInfo
from keyfob.store.sqlite import SqliteStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store.memory import MemoryStore
    from keyfob.store.protocol import Shelf, Store
    from keyfob.store.record import Attributes

__all__ = [
    "Attributes",
    "Hardening",
    "MemoryStore",
    "Shelf",
    "SqliteStore",
    "Store",
    "TokenInfo",
    "open_shelf",
    "open_store",
]


def open_store(location: str | Path, *, read_only: bool = False, log: Callable[[str], None] | None = None) -> Store:
    """The store in a file."""
    if log is None:
        return SqliteStore.open(location, read_only=read_only)
    return SqliteStore.open(location, read_only=read_only, log=log)


def open_shelf(
    url: str,
    folder: str,
    witness: str | None = None,
    *,
    patience: float = 10.0,
    max_age: float = 0.0,
    own: bool = True,
) -> Shelf:
    """Where tokens are kept: `folder`, or the PostgreSQL database of `url` unless that is empty.

    CKR_ARGUMENTS_BAD where the URL is none; CKR_FUNCTION_NOT_SUPPORTED where psycopg is not installed. Whether the
    server answers shows when it is asked for something. `patience`, `max_age`: seconds, see postgres/database.py.
    `own`: see Folder.
    """
    if not url:
        return Folder(folder, witness, own=own)
    if not url.startswith(("postgresql://", "postgres://")):
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the URL of the store begins with postgresql://")
    if environment.is_secure():  # libpq asks the environment for hosts, passwords and files, whatever the URL says
        text = "a program with rights that its caller has not got (setuid, setgid, capabilities) uses no database"
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, text)
    try:
        from keyfob.store.postgres.server import Server
    except ImportError as problem:
        text = f"tokens in PostgreSQL need psycopg: pip install 'keyfob[postgresql]' ({problem})"
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, text) from None
    return Server(url, folder, witness, patience=patience, max_age=max_age)


def __getattr__(name: str) -> object:
    """MemoryStore, loaded when somebody wants one."""
    if name == "MemoryStore":
        from keyfob.store.memory import MemoryStore

        return MemoryStore
    raise AttributeError(name)
