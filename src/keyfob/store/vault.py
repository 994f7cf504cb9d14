"""Logins and PINs of a token in SQLite: who has opened the master key, and how it is wrapped.

Argon2id runs outside of the store's lock and of every transaction, so that other threads and processes go on meanwhile;
what was true before it is checked again after it.
"""

from __future__ import annotations

import os
import time
from _thread import RLock
from collections.abc import Callable
from typing import TYPE_CHECKING

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import key_file, rows
from keyfob.store import meta as meta_table
from keyfob.store.counters import ROLES
from keyfob.store.info import MAX_PIN, MIN_PIN
from keyfob.store.meta import GUARDED, NUMBER, WRAPPING_OF, Meta

if TYPE_CHECKING:
    from keyfob.store.database import Database
    from keyfob.store.hardening import Hardening
    from keyfob.store.seal import Keys

PAUSE = 0.02  # seconds between looks at whether other attempts are settled


class Vault:
    """`keys` and `role` ("user", "so" or "file") are None while locked. `lock` is the store's."""

    __slots__ = ("_database", "_failed_here", "_log", "_meta", "_opened_by_empty_pin", "_told", "keys", "lock", "role")

    def __init__(self, database: Database, lock: RLock, log: Callable[[str], None]) -> None:
        self._database = database
        self.lock = lock
        self._log = log
        self._meta: Meta | None = None
        self._told: set[str] = set()
        self._failed_here = dict.fromkeys(ROLES, 0)  # wrong PINs on a store that cannot be written
        self._opened_by_empty_pin = False
        self.keys: Keys | None = None
        self.role: str | None = None

    @property
    def sees_private(self) -> bool:
        """The SO opens the master key to wrap it anew, not to see the user's objects."""
        return self.keys is not None and self.role != "so"

    # The facts

    def forget_facts(self) -> None:
        """Read them again at the next use: another process, or a failed transaction, has changed them."""
        self._meta = None

    def facts(self) -> Meta:
        """The meta table as of now, within the lock. Notices when another process has changed the master key."""
        if self._meta is None:
            meta = Meta.load(self._database, None)
            if self.keys is not None:
                if "key_id" not in meta.problems and meta.value("key_id") != self.keys.key_id:
                    self.tell("the token was initialised anew by another process: logged out")
                    self.forget_keys()
                else:
                    meta = Meta.load(self._database, self.keys)
            for name, reason in meta.problems.items():
                self.tell(f"meta {name}: {reason}")
            self._meta = meta
        return self._meta

    def tell(self, text: str) -> None:
        """A line for the log, once."""
        if text not in self._told:
            self._told.add(text)
            self._log(text)

    # Opening

    def login(self, role: str, pin: bytes) -> None:
        """Check the PIN and keep the keys."""
        with self._checked(role, pin) as keys:
            self._adopt(keys, self._open_facts(keys))
            self._keep(role, keys, opened_by_empty_pin=not pin)

    def verify(self, role: str, pin: bytes) -> None:
        """Check the PIN, change nothing but the counters."""
        with self._checked(role, pin) as keys:
            keys.wipe()

    def unlock_with_key_file(self) -> None:
        """Open a token without PIN."""
        from keyfob.store import seal

        with self.lock:
            facts = self.facts()
            wrapping = facts.value(WRAPPING_OF["file"])
            if not wrapping:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this token is opened by a PIN")
            path = key_file.resolve(facts.text("key_file"), self._database.path)
            master = seal.unwrap_with_key(wrapping, "file", key_file.read(path))
            if master is None:
                raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} is not the key of this token")
            keys = seal.Keys(master)
            checked = self._open_facts(keys)
            if not self._database.read_only and self._database.row("SELECT 1 FROM object WHERE mac IS NULL LIMIT 1"):
                with self._database.writing():
                    self._adopt(keys, self._open_facts(keys))
            del checked
            self._keep("file", keys, opened_by_empty_pin=False)

    def forget_keys(self) -> None:
        """Log out."""
        if self.keys is not None:
            self.keys.wipe()
        self.keys = None
        self.role = None
        self._opened_by_empty_pin = False
        self._meta = None

    def _keep(self, role: str, keys: Keys, *, opened_by_empty_pin: bool) -> None:
        self.forget_keys()
        self.keys, self.role = keys, role
        self._opened_by_empty_pin = opened_by_empty_pin
