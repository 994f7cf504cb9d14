"""Objects at rest. `Store` is all that the rooms above know; SqliteStore keeps a token in a file, MemoryStore nowhere.

Errors are PKCS11Error. Whatever the call: CKR_DEVICE_ERROR when the store is damaged or cannot be read,
CKR_DEVICE_MEMORY when it is full, CKR_TOKEN_WRITE_PROTECTED when it can only be read, CKR_FUNCTION_FAILED when another
process kept it busy for ten seconds, CKR_CRYPTOKI_NOT_INITIALIZED when it is closed or was inherited by a fork.
"""

from __future__ import annotations

from keyfob.store.hardening import Hardening
from keyfob.store.info import TokenInfo
from keyfob.store.sqlite import SqliteStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store.memory import MemoryStore
    from keyfob.store.protocol import Store
    from keyfob.store.record import Attributes

__all__ = ["Attributes", "Hardening", "MemoryStore", "SqliteStore", "Store", "TokenInfo", "open_store"]


def open_store(location: str | Path, *, read_only: bool = False, log: Callable[[str], None] | None = None) -> Store:
    """The store at a location: today a path."""
    if log is None:
        return SqliteStore.open(location, read_only=read_only)
    return SqliteStore.open(location, read_only=read_only, log=log)


def __getattr__(name: str) -> object:
    """MemoryStore, loaded when somebody wants one."""
    if name == "MemoryStore":
        from keyfob.store.memory import MemoryStore

        return MemoryStore
    raise AttributeError(name)
